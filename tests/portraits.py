"""Two portraits in the public domain that come with libraries."""

import matplotlib.cbook
import numpy as np
from PIL import Image
from skimage import data

with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as _file:
    HOPPER = np.asarray(Image.open(_file).convert("RGB"))
    """(606, 512, 3) uint8."""
ASTRONAUT = np.asarray(data.astronaut())
"""(512, 512, 3) uint8."""
PORTRAITS = {"astronaut": ASTRONAUT, "hopper": HOPPER}
