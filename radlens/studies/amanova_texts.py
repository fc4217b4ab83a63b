"""What a reader of the study of Amanova et al. 2022 must know, and where it departs from the paper."""

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
    "A map gives each pixel a change: where red pixels become brighter and blue ones darker, all at the same time, the "
    "predicted curve falls, that is, the predicted image quality rises. Gold is bright. Black is zero. Each map has "
    "its "
    "own scale; compare patterns, not strengths.",
    "An upsampled map averages the maps of many samples of 250 × 250 pixels. Figures average its pixels over blocks "
    "that were visited; with few samples blocks are coarse and small disks cannot be seen. Reliability tells how alike "
    "two such maps of other samples would be.",
    "Red disks alone do not show that a model reads the disks: a gradient also shows where a model would look. Each "
    "map "
    "is therefore compared with that of its disk-free twin, the same image with every disk replaced by its "
    "surroundings. t is the paired t value of the large thick disks (1 mm and more, at least twice as thick as the "
    f"threshold) against the ring around each. A map marks the disks if its t is at least {CLEAR_T:g} and that of the "
    f"twin less than {SMALL_SHARE:.2f} of it, in part up to {EQUAL_SHARE:.2f} of it; beyond, it is empty. A map of "
    f"less reliability than {LEAST_RELIABILITY:g} is not one to look at.",
)
"""How to read the page."""

LIMITS: tuple[str, ...] = (
    "The paper's numbers are of its own ten networks, of an analysis of recorded images by the CDMAM Analyser, and of "
    "a simulation that is not public. Here the truth is the expected automated read-out of the simulator of radlens, "
    "with the disk positions, grid and writing of a phantom of its own. Curves and coverages can be compared in kind, "
    "not digit by digit.",
    "What can be learned here: whether every step of the study runs, whether each of the paper's observations is seen "
    "again, and with which recipe.",
)
"""What the numbers do not show."""

PUBLISHED = (
    "Paper: recorded and simulated phantoms and networks of its own. Here: the simulator and networks of radlens."
)
"""Below tables with the paper's numbers."""

OTHER_SPACING = (
    "The paper's recipe was trained with pixels of 0.07 mm, those of this run have {spacing:g} mm: its curves, "
    "intervals "
    "and maps are outside of what it learned. The registered recipe was trained with many spacings."
)
"""Warning of a run with other pixels."""

UNCALIBRATED = (
    "The registered model has no calibration: its intervals are those of the noise that its networks learned, which "
    "are "
    "too wide."
)
"""Warning of a model whose record lacks a calibration."""

STAND_IN = (
    "No recordings of a phantom can be shipped. An image simulated with another exposure, blur, gold of the grid, "
    "margin and orientation than those of Table 1 stands in the place of the paper's recorded image; it is not one. "
    "Option --recordings takes real ones."
)
"""What stands for a recorded image."""

RECORDINGS = "The recorded images are those of the folder that was given; their curves are those of its cdc.csv."
"""What the recorded images are."""

DEPARTURES = (
    "Two recipes are compared. The paper's own (preset paper-small) has its network, its loss and its steps of "
    "training "
    "with {paper_members} networks and {paper_images} images instead of 10 and 57 600, a first dense layer of a low "
    "rank, and a learning rate that rises and falls; it sees one sample of the whole image.\n\n"
    "The registered recipe has the same network. It departs from the paper on purpose, because networks that were "
    "trained by the paper's recipe on simulated phantoms read the curve off grid and noise and not off the disks: the "
    "phantom is found, turned upright and laid over its own coordinates; background and gain are taken out and the "
    "noise becomes the unit; the networks learn the logarithm of the thresholds on phantoms whose grid, disks, noise "
    "and blur vary independently; {registered_samples} samples are averaged; intervals are calibrated on phantoms that "
    "no network saw."
)
"""What differs from the paper."""

FIG_2 = (
    "Paper: curves of three images with 1.96 total uncertainties, truths dashed, and the error of every point against "
    "its total uncertainty. Its largest errors are those of scenario 4, whose noise is highest. Here: the registered "
    "recipe averages {registered_samples} samples and its interval is that of a calibrated log-normal; that of the "
    "paper's recipe is 1.96 total uncertainties of one sample."
)
"""Below Fig. 2."""

FIG_3 = (
    "Paper: occlusion of single pixels, sensitivity and OMIG of one downsampled image; OMIG alone shows patterns, the "
    "grid above all. Here occlusion sets squares of the sample to zero instead of single pixels: 62 500 evaluations "
    "for "
    "each image would say the same more noisily. The registered recipe cuts the phantom out, so its samples have no "
    "margin and all three phantoms lie in the same place; zero is the background there, and the mean of all training "
    "images in the paper's recipe."
)
"""Below Fig. 3."""

FIG_4 = (
    "Paper: nearly all of the large disks are red, in a vertical strip where the lines of the grid are blue; not all "
    "disks contribute, and the writing does. Here the registered recipe shows the phantom upright to its networks, and "
    "the map is carried back to the image that was sent; it was trained with a grid that says nothing about the curve, "
    "so that lines and writing matter less than in the paper. Whether a map marks disks is said by the comparison with "
    "its twin, below each figure and in the tables."
)
"""Below Fig. 4."""

FIG_5 = (
    "Paper: the small disks do not contribute, since samples of 250 × 250 pixels seldom hit them. Here both parts of a "
    "row are the same part of image and map; the colours are those of the whole map."
)
"""Below Fig. 5."""

FIG_6 = (
    "Paper: in scenario 4 the grid still appears and the disks do not, which explains the large errors. Here the "
    "registered recipe was trained with noise up to and beyond that of scenario 4, so that it need not fail as the "
    "paper's does."
)
"""Below Fig. 6."""

FIG_7 = (
    "Paper: the recorded image turned by 90°. The colours of the grid stay where they were in the unturned image, as "
    "the "
    "networks never saw a turned one, and some disks are still red. This question makes sense for the paper's recipe "
    "alone: the registered recipe finds the phantom and undoes the rotation before any network sees it, so its map is "
    "that of Fig. 4 turned with the image. The two correlations say it in numbers: between the map of the turned image "
    "and that of the unturned one, the latter turned with the image, or left as it is; both reduced to 50 × 50 means."
)
"""Below Fig. 7."""

FIG_12 = (
    "Paper: upsampling shows no finer details in maps of sensitivity analysis. Here the gradient of the first step of "
    "OMIG is drawn with its opposite sign, averaged over as many samples as the maps of Fig. 4. A path of c = 1 is "
    "short for the registered recipe, so that its maps of OMIG and of sensitivity are alike and both show the disks."
)
"""Below Fig. 12."""

FIG_13 = (
    "Paper: adding the map of OMIG to the image lowers the predicted curve, for the images of Figs. 4 and 6. Here each "
    "of the {registered_samples} samples that a curve rests on gets its own map added. How far c = 1 leads depends on "
    "the unit of the pixels and of the score: a registered image is in units of its noise. Where the change is smaller "
    "than the line is wide, the ratio below shows it, and a second figure has a larger c."
)
"""Below Fig. 13."""

FIG_14 = (
    "Paper: a small c gives the map of sensitivity analysis, a large one leads to a local minimum; c = 1 worked well. "
    "The text of the paper does not give the values of its figure; those here span from the paper's 1 to the c at "
    "which "
    "the midpoint falls visibly and beyond. Each map has its own scale."
)
"""Below Fig. 14."""
