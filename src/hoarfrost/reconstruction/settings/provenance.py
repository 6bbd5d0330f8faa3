"""Where the value of each setting of a run comes from."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

from pydantic import Field
from pydantic.fields import FieldInfo

from hoarfrost.options import fact

Source = Literal["default", "data", "machine", "user"]
"""A value that is the same for all data, chosen from the data or for the machine, or given by the user."""


def setting(source: Source, *, follows: str | None = None) -> Any:
    """A field that no option of the same name gives: where its value comes from unless the option it `follows` does."""
    return Field(json_schema_extra={"source": source, "follows": follows})


def sources_of(
    fields: Mapping[str, FieldInfo], given: Collection[str], from_data: Collection[str] = ()
) -> dict[str, Source]:
    """The source of every setting whose field names one, in their order.

    `given` are the options that the user gave another value than the default; `from_data` the settings whose default
    the data did not allow, or that the user asked to be found out.
    """
    sources: dict[str, Source] = {}
    for name, field in fields.items():
        source = fact(field, "source")
        if source is not None:
            asked = "user" if (fact(field, "follows") or name) in given else source
            sources[name] = cast(Source, "data" if name in from_data else asked)
    return sources
