# Written by `amibuild terraform`, which replaces this file: put changes of yours elsewhere.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}
