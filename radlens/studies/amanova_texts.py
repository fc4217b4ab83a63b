"""Texts of the study of Amanova et al. 2022: how to read it, its limits, and its deviations from the paper."""

from radlens.families.cdmam.disk_statistics import CLEAR_T, EQUAL_SHARE, LEAST_RELIABILITY, SMALL_SHARE

__all__ = [
    "DEPARTURES",
    "FIG_2",
    "FIG_3",
    "FIG_4",
    "FIG_5",
    "FIG_6",
    "FIG_7",
    "FIG_12",
    "FIG_13",
    "FIG_14",
    "LIMITS",
    "OTHER_SPACING",
    "PUBLISHED",
    "READING",
    "RECORDINGS",
    "STAND_IN",
    "UNCALIBRATED",
]

READING: tuple[str, ...] = (
    "A map assigns a change to each pixel: if red pixels become brighter and blue ones darker, all at the same time, "
    "the predicted curve falls, that is, the predicted image quality rises. Gold is bright. Black is zero. Each map "
    "has a separate scale; compare patterns, not strengths.",
    "An upsampled map averages the maps of many samples of 250 × 250 pixels. Figures average its pixels over blocks "
    "that were visited; with few samples blocks are coarse and small disks are invisible. Reliability is the expected "
    "correlation of two such maps from different samples.",
    "Red disks alone do not show that a model reads the disks: a gradient also shows where a model would look. Each "
    "map is therefore compared with that of its disk-free twin, the same image with every disk replaced by its "
    "surroundings. t is the paired t value of the large thick disks (1 mm and more, at least twice as thick as the "
    f"threshold) against the ring around each. A map marks the disks if its t is at least {CLEAR_T:g} and that of the "
    f"twin is less than {SMALL_SHARE:.2f} of it, in part up to {EQUAL_SHARE:.2f} of it; otherwise it is empty. A map "
    f"with a reliability below {LEAST_RELIABILITY:g} should not be interpreted.",
)
"""Paragraphs on how to read the page."""

LIMITS: tuple[str, ...] = (
    "The results of the paper come from its ten networks, from an analysis of recorded images with the CDMAM "
    "Analyser, and from a simulation that is not public. Here the truth is the expected automated read-out of the "
    "simulator of radlens, whose phantom has other disk positions, grid and writing. Curves and coverages can be "
    "compared in kind, not digit by digit.",
    "This study shows whether every step runs, whether each observation of the paper recurs, and with which recipe.",
)
"""Paragraphs on the limits of the results."""

PUBLISHED = "Paper: its recorded and simulated phantoms and its networks. Here: the simulator and networks of radlens."
"""Note below tables with results of the paper."""

OTHER_SPACING = (
    "The paper's recipe was trained with pixels of 0.07 mm, and this run has pixels of {spacing:g} mm: curves, "
    "intervals and maps of this recipe are outside its training range. The registered recipe was trained with many "
    "spacings."
)
"""Warning for a run with another pixel spacing."""

UNCALIBRATED = (
    "The registered model has no calibration: its intervals follow from the noise that its networks learned, and are "
    "too wide."
)
"""Warning for a model without a calibration in its record."""

STAND_IN = (
    "No recordings of a phantom can be shipped. An image simulated with another exposure, blur, gold of the grid, "
    "margin and orientation than those of Table 1 replaces the recorded image of the paper. Option --recordings takes "
    "real recordings."
)
"""Warning about the replacement of the recorded image."""

RECORDINGS = "The recorded images come from the given folder, their curves from its cdc.csv."
"""Source of the recorded images."""

DEPARTURES = (
    "Two recipes are compared. The paper's recipe (preset paper-small) has the network, the loss and the training "
    "steps of the paper, with {paper_members} networks and {paper_images} images instead of 10 and 57 600, a first "
    "dense layer of low rank, and a learning rate that rises and falls; it sees one sample of the whole "
    "image.\n\nThe registered recipe has the same network. It deviates from the paper on purpose, because networks "
    "that were trained with the paper's recipe on simulated phantoms read the curve off grid and noise and not off "
    "the disks: the phantom is found, turned upright and transformed to phantom coordinates; background and gain are "
    "removed and the noise becomes the unit; the networks learn the logarithm of the thresholds on phantoms whose "
    "grid, disks, noise and blur vary independently; {registered_samples} samples are averaged; intervals are "
    "calibrated on phantoms that no network saw."
)
"""Deviations from the paper."""

FIG_2 = (
    "Paper: curves of three images with 1.96 total uncertainties, truths dashed, and the error of every point against "
    "its total uncertainty. The largest errors are those of scenario 4, which has the highest noise. Here: the "
    "registered recipe averages {registered_samples} samples and has calibrated log-normal intervals; the interval of "
    "the paper's recipe is 1.96 total uncertainties of one sample."
)
"""Text of Fig. 2."""

FIG_3 = (
    "Paper: occlusion of single pixels, sensitivity and OMIG of one downsampled image; only OMIG shows patterns, "
    "mainly the grid. Here occlusion sets squares of the sample to zero instead of single pixels: 62 500 evaluations "
    "for each image would give the same result with more noise. The registered recipe cuts the phantom out, so its "
    "samples have no margin and all three phantoms are at the same position; zero is the background there, and the "
    "mean of all training images in the paper's recipe."
)
"""Text of Fig. 3."""

FIG_4 = (
    "Paper: nearly all large disks are red, in a vertical strip in which the lines of the grid are blue; not all disks "
    "contribute, and the writing does. Here the registered recipe shows the phantom upright to its networks, and the "
    "map is transformed back to the image that was sent; it was trained with a grid that is independent of the curve, "
    "so that lines and writing matter less than in the paper. The comparison with the twin, below each figure and in "
    "the tables, shows whether a map marks disks."
)
"""Text of Fig. 4."""

FIG_5 = (
    "Paper: the small disks do not contribute, because samples of 250 × 250 pixels seldom hit them. Here each row "
    "shows the same part of image and map, with the colour scale of the whole map."
)
"""Text of Fig. 5."""

FIG_6 = (
    "Paper: in scenario 4 the grid still appears and the disks do not, which explains the large errors. Here the "
    "registered recipe was trained with noise up to and beyond that of scenario 4, so that it need not fail like the "
    "paper's recipe."
)
"""Text of Fig. 6."""

FIG_7 = (
    "Paper: the recorded image turned by 90°. The colours of the grid stay at the positions of the unturned image, "
    "because the networks never saw a turned one, and some disks are still red. The question is meaningful only for "
    "the paper's recipe: the registered recipe finds the phantom and undoes the rotation before a network sees it, "
    "so its map is that of Fig. 4 turned with the image. Two correlations quantify this: between the map of the "
    "turned image and that of the unturned one, with the latter turned or not; both are reduced to 50 × 50 means."
)
"""Text of Fig. 7."""

FIG_12 = (
    "Paper: upsampling shows no finer details in maps of sensitivity analysis. Here the gradient of the first step of "
    "OMIG is drawn with the opposite sign, averaged over as many samples as the maps of Fig. 4. A path of c = 1 is "
    "short for the registered recipe, so that its maps of OMIG and of sensitivity are similar and both show the disks."
)
"""Text of Fig. 12."""

FIG_13 = (
    "Paper: adding the map of OMIG to the image lowers the predicted curve, for the images of Figs. 4 and 6. Here each "
    "of the {registered_samples} samples of a curve has its own map added. The effect of c = 1 depends on the units of "
    "pixels and score: a registered image is in units of its noise. If the change is smaller than the width of the "
    "line, the ratio below shows it, and a second figure has a larger c."
)
"""Text of Fig. 13."""

FIG_14 = (
    "Paper: a small c gives the map of sensitivity analysis, a large one leads to a local minimum; c = 1 worked well. "
    "The text of the paper does not give the values of its figure; those here range from 1, as in the paper, to values "
    "beyond the c at which the midpoint falls visibly. Each map has a separate scale."
)
"""Text of Fig. 14."""
