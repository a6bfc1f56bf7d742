"""Models, what serves, generations, finetunes and the schedules that start them."""
