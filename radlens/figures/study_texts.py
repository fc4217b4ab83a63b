"""What a reader of the studies must know: how maps and measures are read, and what they do not show."""

__all__ = ["BYRA_READING", "LIMITS_PATIENTS", "LIMITS_SIMULATED", "SAM_MILLAN_READING"]

_COLOURS = (
    "A map gives every pixel a number. Red pixels raise the score of the class that is explained, blue pixels lower "
    "it; the weaker the colour, the smaller the number. Every map has its own scale, printed below it, because the "
    "methods measure in different units: compare patterns, not strengths. A map without anything to show is stretched "
    "to its own largest value as well and looks as colourful as any other, so read the number below it first."
)

_MEANING = (
    "A map tells what this network reacts to. It does not tell where a cancer is, nor why the network is right. Where "
    "map and lesion differ, the network may look elsewhere, the method may describe the network badly, or the rule "
    "that turns the map into a box or a point may fail: the three cannot be told apart from one picture."
)

_FAITHFULNESS = (
    "Deletion, insertion, infidelity, max-sensitivity and the randomisation of the model ask whether a map says what "
    "the network computes, without any truth about the image. Deletion and insertion show the network images unlike "
    "any it was trained with; compare the curves with the random order where it is drawn. Infidelity compares "
    "contributions with changes of the score when squares are removed; max-sensitivity tells how much a map changes "
    "with a little noise. When the layers are randomised a sound map must change: a method that stays the same would "
    "draw the same picture for a network that has learned nothing."
)

SAM_MILLAN_READING: tuple[str, ...] = (
    _COLOURS,
    _MEANING,
    "Fine maps are thickened by 9 x 9 pixels to be seen, as in the thesis, keeping the sign of the largest value in "
    "the square. LIME and SHAP are not.",
    "Boxes: a map is dilated, what lies above a quantile is kept, small spots are removed, and one box is put around "
    "what is left. IoU is the area shared with the true box over the area of both: 1 if they are the same, 0 if they "
    "do not touch or no box was found. It depends on the quantile, which the thesis does not print, as much as on the "
    "map. So it compares methods under one rule; it is no measure of detection.",
    _FAITHFULNESS,
)
"""For the study of Sam Millan 2023."""

BYRA_READING: tuple[str, ...] = (
    _COLOURS.replace(
        "raise the score of the class that is explained, blue pixels lower it",
        "speak for malignant, blue pixels for benign",
    ),
    _MEANING,
    "Pointing game: a map hits a region when its largest or its smallest value (or both) lies inside. The three "
    "regions cover a good part of the image, so two pixels taken at random hit as well: compare with the "
    "column that says how often. Rates do not add up to the last row, since the two extremes can hit two regions, "
    "and the ring and the region below overlap. Only images that were classified correctly are counted, as in the "
    "paper.",
    "A class activation map has few pixels and is stretched to the size of the image: its extremes are known to about "
    "the size of one of its cells, not to a pixel.",
    _FAITHFULNESS,
)
"""For the study of Byra et al. 2022."""

LIMITS_SIMULATED: tuple[str, ...] = (
    "The images are simulated. Lesions and tissue follow rules that were written down, so that the truth is known in "
    "every pixel, and a network that tells the classes apart may do so by traces of these rules. Nothing here says how "
    "a network would do on patients.",
    "The paper's numbers are of patients' images, other networks' weights, more training and other numbers of cases. "
    "They stand beside ours to show what was measured and on what scale. A difference is no failed replication, and an "
    "agreement is no successful one.",
    "What can be learned here: whether every step of the study runs, whether the methods differ from one another under "
    "the same rule, and how each behaves where the truth is known.",
)
"""For a study on simulated images."""

LIMITS_PATIENTS: tuple[str, ...] = (
    "The images are of patients, from the data set named above. The split into training and test is by patient. The "
    "paper's cases, its split and its training are not known in every detail, so the numbers need not agree.",
    "Whether a map is right is judged by boxes or outlines that a person drew around the lesion. A network may use, "
    "with reason, tissue outside of them.",
)
"""For a study on a data set."""
