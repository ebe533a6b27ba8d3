# Yours to change: `amibuild terraform` writes this folder only where there is none.

output "instance_id" {
  description = "The instance: `aws ssm start-session --target` opens a shell there"
  value       = aws_instance.host.id
}

output "ami_id" {
  description = "AMI id of the image"
  value       = module.amibuild.ami_id
}

output "public_ip" {
  description = "Where players connect to"
  value       = aws_instance.host.public_ip
}
