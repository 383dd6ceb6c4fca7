"""What is kept when something goes wrong: kills, full disks, hostile files, other writers, other labels."""
