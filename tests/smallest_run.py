"""The smallest training recipe: two members, twelve images, seconds."""

from radlens.families.cdmam.training_paper import PaperPreset

SMALLEST = PaperPreset(
    2, 9, 3, epochs=4, batch_size=2, learning_rate=1e-3, dense_rate=0.02, one_cycle=True, rank=2, n_test=6
)
