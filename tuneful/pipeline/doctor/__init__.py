"""What `tuneful doctor` looks at: the machine, data, models, rewards; each finding with the way to mend it."""
