"""What the model is trained to do, one module a task: texts with the answer that is right for each."""
