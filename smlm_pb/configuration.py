"""Files that people write by hand: YAML in, validated values or one clear line out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    Model = TypeVar("Model", bound=BaseModel)
else:
    Model = TypeVar("Model")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping, with the safe loader.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    ConfigurationError
        When the file cannot be read, is no YAML, repeats a key, or holds something else than a mapping.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}; check the path.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not a text file; give a YAML file in UTF-8.") from None
    try:
        data = yaml.load(text, Loader=_strict_loader())  # a SafeLoader that also refuses repeated keys
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigurationError(f"{path}{where}: not valid YAML ({problem}); correct that line.") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigurationError(f"{path} holds {found}; it must hold 'key: value' lines.")
    return {str(key): value for key, value in data.items()}


def validate(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """Turn plain values into a pydantic model.

    Parameters
    ----------
    model : type of pydantic.BaseModel
        What the values must satisfy. Field descriptions and examples become the remedy in messages.
    data : mapping
        Plain values.
    source : str
        Where they come from, for the message (a file name).

    Returns
    -------
    BaseModel

    Raises
    ------
    ConfigurationError
        One line: the key with its path, the value, the rule it breaks and what to write instead.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, model, source)) from None


def _strict_loader() -> type[Any]:
    import yaml

    class StrictLoader(yaml.SafeLoader):
        """Safe loader that refuses a key given twice, of which YAML would silently keep the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, str) and key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key if isinstance(key, str) else id(key_node))
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    return StrictLoader


def _explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    problems = error.errors(include_url=False, include_context=True)
    # An unknown key is most often a misspelt one, and explains the missing key beside it.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    more = f" ({len(problems) - 1} more to correct)" if len(problems) > 1 else ""
    keys, owner = _walk(model, problem["loc"])
    path = _join(keys)
    if problem["type"] == "extra_forbidden":
        known = list(owner.model_fields) if owner is not None else []
        near = difflib.get_close_matches(str(keys[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys here are {', '.join(known)}."
        return f"{source}: unknown key {path}; {hint}{more}"
    if problem["type"].startswith("union_tag"):
        return f"{source}: {_explain_tag(problem, path)}{more}"
    # An entry of a list has no name of its own; what is said about the list helps.
    remedy = _remedy(owner, next((key for key in reversed(keys) if isinstance(key, str)), ""))
    if problem["type"] == "missing":
        return f"{source}: the key {path} is missing; {remedy}{more}"
    if problem["type"] == "value_error":
        rule = problem["msg"].removeprefix("Value error, ").rstrip(".")
        return f"{source}: {path + ': ' if path else ''}{rule}.{more}"
    rule = re.sub(r"^\w+ should ", "", problem["msg"]).rstrip(".")
    if problem["type"].startswith("model_"):
        rule = "hold 'key: value' lines"
    return f"{source}: {path} = {_shown(problem['input'])} must {rule}; {remedy}{more}"


def _explain_tag(problem: Any, path: str) -> str:
    """Explain a missing or unknown value of the key that says of which kind a section is."""
    context = problem.get("ctx", {})
    key = f"{path}.{str(context.get('discriminator', 'kind')).strip(chr(39))}"
    if problem["type"] == "union_tag_not_found":
        return f"the key {key} is missing; add it, e.g. kind: uniform."
    known = [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
    near = difflib.get_close_matches(str(context.get("tag", "")), known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{key} = {_shown(context.get('tag'))} must be one of {', '.join(known)}{hint}."


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[int | str], Any]:
    """Return the keys of a location without pydantic's union tags, and the model that owns the last key."""
    keys: list[int | str] = []
    owner: Any = None
    here: list[Any] = [model]
    for part in location:
        if isinstance(part, int):
            keys.append(part)
            continue
        fields = [m for m in here if part in m.model_fields]
        tagged = [m for m in here if part in _tags(m)]
        if not fields and tagged and len(here) > 1:
            here = tagged
            continue
        keys.append(part)
        owner = (fields or here)[0] if here else None
        here = _models_in(fields[0].model_fields[part].annotation) if fields else []
    return keys, owner


def _models_in(annotation: Any) -> list[Any]:
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _tags(model: Any) -> tuple[Any, ...]:
    from typing import get_args

    return tuple(tag for field in model.model_fields.values() for tag in get_args(field.annotation))


def _join(keys: list[int | str]) -> str:
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def _remedy(owner: Any, key: str) -> str:
    field = owner.model_fields.get(key) if owner is not None else None
    if field is None:
        return "correct the value."
    example = f"e.g. {key}: {field.examples[0]}" if field.examples else "correct the value"
    return f"{example} ({field.description})." if field.description else f"{example}."


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
