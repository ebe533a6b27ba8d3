"""provisioners/ on disk -> typed Provisioner and Service -> BuildStep, with content hashes."""
