"""Speed and size of exports and trainings, side by side with the usual alternatives."""
