"""The parameters that flows share: bounds and descriptions, once, for Prefect's forms and for the command line."""

import inspect
import textwrap
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

from blocks.library import ImageLibrary

Library: TypeAlias = Annotated[
    ImageLibrary | None, Field(description="Where the images go; empty: what CATCHMENT_LIBRARY names, or ./library.")
]
MaxFiles: TypeAlias = Annotated[
    int | None, Field(ge=1, description="Most files to take in this run; empty for all. The rest is deferred.")
]
Strict: TypeAlias = Annotated[bool, Field(description="Fail the run if any file failed or went to quarantine.")]
DryRun: TypeAlias = Annotated[bool, Field(description="Show what would be taken and touch nothing.")]
Quick: TypeAlias = Annotated[bool, Field(description="Compare sizes only, and read no image.")]
Repair: TypeAlias = Annotated[
    bool,
    Field(
        description="Mend what can be: adopt orphaned images, draw missing thumbnails, set altered files aside and "
        "have them and the missing ones fetched again."
    ),
]

Camera: TypeAlias = Annotated[
    str, Field(min_length=1, description="Name of the camera, exactly as the images have it.")
]
Days: TypeAlias = Annotated[
    int, Field(ge=1, le=36_500, description="How many days images are kept, counted from their capture.")
]
Apply: TypeAlias = Annotated[bool, Field(description="Do it; without it only what would be done is shown.")]

F = TypeVar("F", bound=Callable[..., Any])


def described(flow_function: F) -> F:
    """Write the parameters' descriptions into the docstring of a function that becomes a flow.

    Prefect fills its forms from the docstring's `Args:` alone, and lets that blank out what a pydantic Field says.
    """
    texts = {
        name: part.description
        for name, hint in get_type_hints(flow_function, include_extras=True).items()
        for part in get_args(hint)
        if isinstance(part, FieldInfo) and part.description
    }
    arguments = "\n".join(f"{name}: {text}" for name, text in texts.items())
    flow_function.__doc__ = f"{inspect.getdoc(flow_function)}\n\nArgs:\n{textwrap.indent(arguments, '    ')}\n"
    return flow_function
