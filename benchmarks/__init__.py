"""What ``impasto bench`` runs: the numbers of the README, measured anew."""
