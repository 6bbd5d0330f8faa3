"""What a user may tell beside the files to convert."""

from pathlib import Path

from hoarfrost.options import OptionsModel, option


class ConvertOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.convert`."""

    stack: str | Path | None = option(None, "Stack of images (.mrc or .mrcs) that a .par file belongs to.")
    pixel_size_A: float | None = option(
        None, "Pixel size of the stack of a .par file, in Å, if its header does not tell it."
    )
    voltage_kV: float | None = option(None, "Acceleration voltage, in kV, which a .par file does not tell.")
    cs_mm: float | None = option(None, "Spherical aberration, in mm, which a .par file does not tell.")
    amplitude_contrast: float | None = option(
        None, "Part of the contrast that is amplitude contrast, from 0 to 1, which a .par file does not tell."
    )
    datadir: str | Path | None = option(
        None,
        "Folder that the image names are relative to, such as the project folder. By default, that of the file, or one "
        "above it.",
    )
    overwrite: bool = option(False, "Replace the output if it exists.")
