"""What a bake writes for people and for Terraform: data in, text out, nothing else."""
