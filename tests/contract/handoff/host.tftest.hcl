# Run in the example's folder by test_handoff.py, beside what is pinned there: game-host 2026.11.22.1.

mock_provider "aws" {
  mock_data "aws_ami" {
    defaults = {
      tags = {
        "amibuild:image"    = "game-host"
        "amibuild:digest"   = "3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f"
        "amibuild:verified" = "passed"
      }
    }
  }

  mock_data "aws_partition" {
    defaults = {
      partition = "aws"
    }
  }

  mock_data "aws_caller_identity" {
    defaults = {
      account_id = "123456789012"
    }
  }

  mock_data "aws_iam_policy_document" {
    defaults = {
      json = "{}"
    }
  }
}

run "a_host_with_its_volume" {
  command = plan

  assert {
    condition     = aws_instance.host.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv1 would do"
  }

  assert {
    condition     = join(" ", [for rule in aws_vpc_security_group_ingress_rule.service : "${rule.from_port}-${rule.to_port}/${rule.ip_protocol}"]) == "30000-30000/udp"
    error_message = "not exactly what the image's firewall lets in"
  }

  assert {
    condition     = aws_ebs_volume.state["minetest"].size == 10 && aws_ebs_volume.state["minetest"].tags["amibuild:backup"] == "daily"
    error_message = "not the volume that minetest's service.toml asks for"
  }

  assert {
    condition     = aws_volume_attachment.state["minetest"].device_name == "/dev/sdf"
    error_message = "not the first free device"
  }

  assert {
    condition     = length(data.aws_iam_policy_document.services.statement) == 2
    error_message = "the role may read no secret, though minetest has one"
  }
}
