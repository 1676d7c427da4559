"""Conditions on columns, written as text and read safely.

``photons > 500 and sigma_nm < 20`` is parsed into Python's syntax tree; only names of columns, numbers, arithmetic,
comparisons, ``and``/``or``/``not`` and a handful of functions are allowed. Nothing is executed that is not listed here.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

Array = npt.NDArray[Any]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "log10": np.log10,
    "exp": np.exp,
    "floor": np.floor,
    "round": np.round,
    "hypot": np.hypot,
    "min": np.minimum,
    "max": np.maximum,
    "isfinite": np.isfinite,
    # Of the whole column, so that a condition can follow the data.
    "mean": np.nanmean,
    "median": np.nanmedian,
    "std": np.nanstd,
    "percentile": np.nanpercentile,
}


def evaluate_condition(locs: Localizations, expression: str) -> npt.NDArray[np.bool_]:
    """Evaluate a condition for every row.

    Parameters
    ----------
    locs : Localizations
        Its columns may be named, and its derived quantities in nm (``sigma_nm``, ``x_nm``, …).
    expression : str
        For example ``"photons > 500 and 5 < sigma_nm < 20"``, ``"not (x < 3 or y < 3)"``,
        ``"photons > percentile(photons, 5)"``. Functions: abs, sqrt, log, log10, exp, floor, round, hypot, min, max,
        isfinite, and of a whole column mean, median, std, percentile.

    Returns
    -------
    bool array (n,)

    Raises
    ------
    ConfigurationError
        When the expression cannot be read, names an unknown column, or is no condition; says where.
    TableError
        When a derived quantity needs a pixel size that is unknown.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        where = f" at position {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise ConfigurationError(
            f"Cannot read the condition {expression!r}{where}; write it like 'photons > 500 and sigma_nm < 20'."
        ) from None
    except (RecursionError, MemoryError):
        raise ConfigurationError("The condition is nested too deeply; split it into several.") from None
    with np.errstate(all="ignore"):
        try:
            value = _Evaluator(locs, expression).visit(tree.body)
        except (TypeError, ArithmeticError, np.exceptions.DTypePromotionError) as error:
            raise ConfigurationError(f"The condition {expression!r} cannot be computed: {error}.") from None
        except RecursionError:
            raise ConfigurationError("The condition is nested too deeply; split it into several.") from None
    result = np.asarray(value)
    if result.dtype != bool:
        raise ConfigurationError(f"{expression!r} is no condition but a number; compare it, e.g. '{expression} > 0'.")
    return np.array(np.broadcast_to(result, len(locs)))


class _Evaluator(ast.NodeVisitor):
    """Computes what is allowed, and refuses everything else by name."""

    def __init__(self, locs: Localizations, expression: str) -> None:
        self._locs = locs
        self._expression = expression

    def generic_visit(self, node: ast.AST) -> Any:
        text = ast.get_source_segment(self._expression.strip(), node) if isinstance(node, ast.expr) else None
        raise ConfigurationError(
            f"{(text or type(node).__name__)!r} is not allowed in the condition {self._expression!r}; use columns, "
            "numbers, + - * / ** %, comparisons, and, or, not."
        )

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, bool | int | float | str):
            # Large whole numbers would make a power run for ever.
            return float(node.value) if type(node.value) is int else node.value
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Array:
        if node.id in self._locs:
            column = self._locs[node.id]
            return column.astype(np.float64) if column.dtype.kind in "iuf" else column
        if node.id in known_names(self._locs):
            return self._locs.derived(node.id)
        near = difflib.get_close_matches(node.id, known_names(self._locs), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known_names(self._locs))}."
        raise ConfigurationError(f"Unknown column {node.id!r} in {self._expression!r}; {hint}")

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        compute = _ARITHMETIC.get(type(node.op))
        return self.generic_visit(node) if compute is None else compute(self.visit(node.left), self.visit(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.Not | ast.Invert):
            return np.logical_not(self._condition(value, node.operand))
        return operator.neg(value) if isinstance(node.op, ast.USub) else value

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        parts = [self._condition(self.visit(part), part) for part in node.values]
        return combine.reduce(np.broadcast_arrays(*parts))

    def visit_Compare(self, node: ast.Compare) -> Any:
        values = [self.visit(part) for part in (node.left, *node.comparators)]
        result: Any = True
        for k, comparison in enumerate(node.ops):
            compare = _COMPARISONS.get(type(comparison))
            if compare is None:
                return self.generic_visit(node)
            result = np.logical_and(result, compare(values[k], values[k + 1]))
        return result

    def visit_Call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords:
            name = ast.get_source_segment(self._expression.strip(), node.func)
            raise ConfigurationError(
                f"Unknown function {name!r} in {self._expression!r}; there are {', '.join(_FUNCTIONS)}."
            )
        return _FUNCTIONS[node.func.id](*(self.visit(argument) for argument in node.args))

    def _condition(self, value: Any, node: ast.expr) -> Any:
        if np.asarray(value).dtype == bool:
            return value
        text = ast.get_source_segment(self._expression.strip(), node)
        raise ConfigurationError(
            f"{text!r} in {self._expression!r} is a number, not a condition; compare it, e.g. '{text} > 0'."
        )


def known_names(locs: Localizations) -> list[str]:
    """Names a condition may use: the columns, and the quantities in nm that follow from them."""
    from smlm_pb.columns import COLUMN_BY_NAME

    derived = [
        f"{name}_nm" for name in locs.column_names if name in COLUMN_BY_NAME and COLUMN_BY_NAME[name].unit == "px"
    ]
    if "sigma_x" in locs and "sigma_y" in locs:
        derived.append("sigma_nm")
    return [*locs.column_names, *derived]
