# Run in the module's folder by test_handoff.py, beside what is pinned there: game-host 2026.11.22.1.

mock_provider "aws" {
  mock_data "aws_ssm_parameter" {
    defaults = {
      insecure_value = "ami-0c0ffee0c0ffee001"
    }
  }

  mock_data "aws_ami" {
    defaults = {
      tags = {
        "amibuild:image"    = "game-host"
        "amibuild:digest"   = "3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f"
        "amibuild:verified" = "passed"
      }
    }
  }
}

run "the_pinned_image_is_taken" {
  command = plan

  assert {
    condition     = local.ami_id == "ami-0a1b2c3d4e5f60718"
    error_message = "took ${local.ami_id}"
  }

  assert {
    condition     = [for port in values(output.ports) : port.port] == [30000]
    error_message = "open: ${jsonencode(output.ports)}"
  }

  assert {
    condition     = output.users.minetest == "svc-minetest" && output.volumes.minetest.size_gib == 10
    error_message = "not what minetest's service.toml says"
  }

  assert {
    condition     = jsonencode(output.secrets.secretsmanager) == jsonencode(["/game-host/minetest/token"])
    error_message = "secrets: ${jsonencode(output.secrets)}"
  }
}

run "the_image_of_a_channel_is_taken_also_where_its_tags_can_not_be_seen" {
  command = plan

  variables {
    channel    = "staging"
    check_tags = false
  }

  override_data {
    target = data.aws_ami.image
    values = {
      tags = {}
    }
  }

  assert {
    condition     = data.aws_ssm_parameter.channel[0].name == "/amibuild/game-host/staging/ami-id"
    error_message = "read ${data.aws_ssm_parameter.channel[0].name}"
  }

  assert {
    condition     = local.ami_id == "ami-0c0ffee0c0ffee001"
    error_message = "took ${local.ami_id}"
  }
}

run "a_channel_that_the_recipe_does_not_have_is_refused" {
  command = plan

  variables {
    channel = "weekly"
  }

  expect_failures = [data.aws_ssm_parameter.channel]
}

run "another_image_is_refused_with_what_is_known_of_its_services_and_so_is_one_that_is_not_proven" {
  command = plan

  override_data {
    target = data.aws_ami.image
    values = {
      tags = {
        "amibuild:image"    = "web-host"
        "amibuild:digest"   = "another"
        "amibuild:verified" = "failed"
      }
    }
  }

  expect_failures = [output.ami_id, check.services]
}

run "one_that_was_revoked_by_half_is_refused" {
  command = plan

  override_data {
    target = data.aws_ami.image
    values = {
      tags = {
        "amibuild:image"    = "game-host"
        "amibuild:digest"   = "3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f"
        "amibuild:verified" = "passed"
        "amibuild:revoked"  = "it loses worlds"
      }
    }
  }

  expect_failures = [output.ami_id]
}
