"""What runs many trainings and says what they show."""
