"""A tour of the PVE API with proxmoxer: login both ways, create, clone, config, start, stop, delete, upload, refusals."""

import os
import sys
import tempfile
import time

from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Tasks

host, ca, token, secret, password = sys.argv[1:]


def done(pve, upid):
    """Waits for a task the way proxmoxer's own tool does."""
    status = Tasks.blocking_status(pve, upid, timeout=60, polling_interval=0.05)
    assert status["exitstatus"] == "OK", status
    return status


def refused(code, text, call):
    """The call is refused with that status and text."""
    try:
        call()
    except ResourceException as error:
        said = f"{error.status_message} {error.content} {error.errors}"
        assert error.status_code == code and text in said, (code, text, error.status_code, said)
        return
    raise AssertionError(f"{text}: not refused")


user, name = token.split("!")
by_token = ProxmoxAPI(host, user=user, token_name=name, token_value=secret, verify_ssl=ca)
assert by_token.version.get()["version"].startswith(("8.", "9.")), by_token.version.get()

try:
    ProxmoxAPI(host, user="root@pam", password="wrong", verify_ssl=ca)
    raise AssertionError("a wrong password is taken")
except AuthenticationError as error:
    assert "authenticate" in str(error) or "authentication failure" in str(error), error

root = ProxmoxAPI(host, user="root@pam", password=password, verify_ssl=ca)
node = root.nodes.get()[0]["node"]
on = root.nodes(node)

done(root, on.qemu.post(vmid=9100, name="tour", cores=2, memory=2048, scsihw="virtio-scsi-single",
                        scsi0="local-lvm:1", net0="virtio,bridge=vmbr0", tags="tour", boot="order=scsi0"))
config = on.qemu(9100).config.get()
assert (config["cores"], config["name"], config["tags"]) == (2, "tour", "tour"), config
assert on.qemu(9100).config.put(description="by hand", digest=config["digest"]) is None
refused(500, "by other user", lambda: on.qemu(9100).config.put(cores=4, digest="0" * 40))
refused(400, "Parameter verification failed", lambda: on.qemu(9100).config.put(nonsense=1))
refused(400, "property is not defined in schema", lambda: on.qemu(9100).config.put(nonsense=1))
refused(500, "already exists", lambda: on.qemu.post(vmid=9100))
refused(500, "does not exist", lambda: on.qemu(9999).config.get())

done(root, on.qemu(9100).status.start.post())
assert on.qemu(9100).status.current.get()["status"] == "running"
done(root, on.qemu(9100).status.stop.post())
done(root, on.qemu(9100).template.post())
done(root, on.qemu(9100).clone.post(newid=9101, name="copy", full=1))
done(root, on.qemu(9100).clone.post(newid=9102, name="linked", full=0))
refused(400, "", lambda: on.qemu(9100).clone.post(newid="x"))
deadline = time.monotonic() + 30
while True:
    shown = {vm["vmid"]: vm for vm in root.cluster.resources.get(type="vm")}
    if shown.get(9101, {}).get("name") == "copy" and shown.get(9100, {}).get("template") == 1:
        break
    assert time.monotonic() < deadline, shown
    time.sleep(0.05)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "tour.iso")
    with open(path, "wb") as file:
        file.write(os.urandom(11 * 1024 * 1024))
    with open(path, "rb") as file:
        done(root, on.storage("local").upload.post(content="iso", filename=file))
volumes = {one["volid"]: one for one in on.storage("local").content.get(content="iso")}
assert volumes["local:iso/tour.iso"]["size"] == 11 * 1024 * 1024, volumes
on.storage("local").content("iso/tour.iso").delete()

for vmid in (9102, 9101, 9100):
    done(root, on.qemu(vmid).delete(purge=1))
assert not [vm for vm in on.qemu.get() if vm["vmid"] in (9100, 9101, 9102)]
refused(403, "Permission check failed", lambda: by_token.access.users.post(userid="x@pve"))
print("proxmoxer: done")
