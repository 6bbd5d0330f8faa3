"""What a user may ask of `example`."""

from hoarfrost.options import OptionsModel, option


class ExampleOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.example`."""

    overwrite: bool = option(False, "Replace the folder if it exists and holds nothing but what example wrote.")
