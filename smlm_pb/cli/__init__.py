"""The command line: one verb per file, dispatched by :mod:`smlm_pb.cli.main`.

A verb is a module ``smlm_pb/cli/<verb>.py`` with two functions: ``add_parser(subparsers)`` declares its
options and ``run(args) -> int`` does the work and returns an exit code. Its one-line help stands in
``main.VERBS``, so that ``smlm-pb --help`` need not import it.
"""
