# Yours to change: `amibuild terraform` writes this folder only where there is none.

provider "aws" {
  region = module.amibuild.region
}
