"""The main job: find wrong labels in one training, keep the rest, and train again."""
