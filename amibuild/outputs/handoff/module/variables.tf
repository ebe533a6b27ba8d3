# Written by `amibuild terraform`, which replaces this file: put changes of yours elsewhere.

variable "channel" {
  description = "Channel whose image to use, such as nightly; null for the pinned image"
  type        = string
  default     = null
}

variable "check_tags" {
  description = "Whether the image's tags have to show what it is; false in an account that it is shared with, which can't see them"
  type        = bool
  default     = true
}
