# Yours to change: `amibuild terraform` writes this folder only where there is none.

variable "channel" {
  description = "Channel whose image to use, such as nightly; null for the pinned image"
  type        = string
  default     = null
}

variable "instance_type" {
  description = "Type of the instance"
  type        = string
  default     = "c7i.large"
}

variable "zone" {
  description = "Availability zone of the instance and its volumes; null for the region's first"
  type        = string
  default     = null
}
