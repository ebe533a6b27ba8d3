# Written by amibuild. The values are in amibuild.auto.tfvars.json, which it rewrites.

variable "amibuild_ami_id" {
  description = "AMI id of the image"
  type        = string
}

variable "amibuild_ami_name" {
  description = "AMI name: image name and version"
  type        = string
}

variable "amibuild_ami_version" {
  description = "Version: UTC date and a counter"
  type        = string
}

variable "amibuild_digest" {
  description = "SHA-256 over what makes the image"
  type        = string
}

variable "amibuild_region" {
  description = "Region that the AMI id belongs to"
  type        = string
}

variable "amibuild_image" {
  description = "Name of the image, as its tag amibuild:image has it"
  type        = string
}

variable "amibuild_channels" {
  description = "Channels, from the newest image to the safest"
  type        = list(string)
}

variable "amibuild_channel_parameter" {
  description = "Name of a channel's parameter, with {channel} in it"
  type        = string
}

variable "amibuild_services" {
  description = "Services of the image, by name; volume and backup or null"
  type = map(object({
    user            = string
    state_directory = string
    memory_mib      = number
    log_group       = string
    ports = list(object({
      name     = string
      port     = number
      protocol = string
      public   = bool
    }))
    volume = object({
      size_gib = number
    })
    backup = object({
      paths = list(string)
      tag   = string
    })
    secrets = list(object({
      name  = string
      id    = string
      store = string
    }))
  }))
}
