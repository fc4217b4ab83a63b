"""Texts of the studies: how to read maps and measures, and their limits."""

__all__ = ["BYRA_READING", "LIMITS_PATIENTS", "LIMITS_SIMULATED", "SAM_MILLAN_READING"]

_COLOURS = (
    "A map assigns a number to every pixel. Red pixels raise the score of the class that is explained, blue pixels "
    "lower it; the weaker the colour, the smaller the number. Every map has a separate scale, printed below it, "
    "because the methods have different units: compare patterns, not strengths. A map without structure is scaled to "
    "its largest value, too, and looks as colourful as any other, so read the number below it first."
)

_MEANING = (
    "A map shows what this network responds to. It does not show where a cancer is, or why the network is right. If "
    "map and lesion differ, the network may use other parts of the image, the method may describe the network "
    "poorly, or the rule that turns the map into a box or a point may fail: one picture cannot distinguish these "
    "causes."
)

_FAITHFULNESS = (
    "Deletion, insertion, infidelity, max-sensitivity and the randomisation of the model test whether a map "
    "describes the computation of the network; they need no ground truth. Deletion and insertion present images to "
    "the network that are unlike its training images; compare the curves with the random order where it is drawn. "
    "Infidelity compares contributions with changes of the score when squares are removed; max-sensitivity measures "
    "how much a map changes with a little noise. When the layers are randomised, a sound map must change: a method "
    "with an unchanged map would give the same picture for a network that has learned nothing."
)

SAM_MILLAN_READING: tuple[str, ...] = (
    _COLOURS,
    _MEANING,
    "Fine maps are thickened by 9 x 9 pixels for display, as in the thesis, with the sign of the largest absolute "
    "value in the square. Maps of LIME and SHAP are not.",
    "Boxes: a map is dilated, pixels above a quantile are kept, small spots are removed, and one box is drawn around "
    "the rest. IoU is the area of the intersection with the true box over that of the union: 1 if they are equal, 0 "
    "if they do not touch or there is no box. It depends on the quantile, which the thesis does not state, as much "
    "as on the map. It therefore compares methods under one rule; it is not a measure of detection. Baselines know no "
    "network: the blurred image itself, the centre of the image, random maps. A method that is not better than the "
    "best of them has not shown that its map depends on what the network learned.",
    _FAITHFULNESS,
)
"""Paragraphs for the study of Sam Millan 2023."""

BYRA_READING: tuple[str, ...] = (
    _COLOURS.replace(
        "raise the score of the class that is explained, blue pixels lower it",
        "speak for malignant, blue pixels for benign",
    ),
    _MEANING,
    "Pointing game: a map hits a region if its largest or its smallest value (or both) is inside. The three regions "
    "cover a large part of the image, so that two random pixels often hit them as well, and so do the image itself and "
    'the centre, which know no network: compare with the columns "Two random pixels", "Image as map" and "Centre of '
    'the image". Rates do not add up to the last row, because the two extremes can hit two regions, and the ring and '
    "the region below overlap. Only correctly classified images count, as in the paper.",
    "A class activation map has few pixels and is stretched to the size of the image: the position of its extremes is "
    "accurate to about one of its cells, not to a pixel.",
    _FAITHFULNESS,
)
"""Paragraphs for the study of Byra et al. 2022."""

LIMITS_SIMULATED: tuple[str, ...] = (
    "The images are simulated. Lesions and tissue follow known rules, so that the truth is known in every pixel, and "
    "a network may distinguish the classes by traces of these rules. The results do not show how a network would "
    "perform on patients.",
    "The results of the paper are for images of patients, networks with other weights, longer training and other "
    "numbers of cases. They are listed to show the measures and their scale. A difference is not a failed "
    "replication, and an agreement is not a successful one.",
    "This study shows whether every step runs, whether the methods differ under the same rule, and how each method "
    "behaves where the truth is known.",
)
"""Paragraphs for a study on simulated images."""

LIMITS_PATIENTS: tuple[str, ...] = (
    "The images are of patients, from the data set named above. The split into training and test is by patient. The "
    "cases, the split and the training of the paper are not known in every detail, so the numbers need not agree.",
    "Maps are judged by boxes or outlines that a person drew around the lesion. A network may have good reasons to "
    "use tissue outside them.",
)
"""Paragraphs for a study on a data set."""
