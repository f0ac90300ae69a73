"""Does IRQ suspension fit this process? One pure function: from what was found to None, or the reason why not."""

from napctl.attach.examine import Examination


def misfit(found: Examination) -> str | None:
    """Why suspension must not be attached; None if it fits.

    Source of the rules: Documentation/networking/napi.rst ("IRQ suspension") and ep_set_busy_poll_napi_id() in
    fs/eventpoll.c: an epoll instance follows one NAPI id, that of the last socket that became ready.
    """
    if not found.instances:
        return "it has no epoll instance; the kernel suspends interrupts only for tasks that wait in epoll"
    if not any(instance.sockets_by_napi for instance in found.instances):
        watched = sum(instance.watched for instance in found.instances)
        return (
            f"none of the {watched} descriptors that its epoll instances watch has received a packet through a NAPI "
            "instance: it has no connection yet, or only over loopback, which has no NAPI instance"
        )
    for instance in found.instances:
        if len(instance.sockets_by_napi) > 1:
            mix = ", ".join(f"{count} of NAPI {napi}" for napi, count in sorted(instance.sockets_by_napi.items()))
            return (
                f"epoll instance {instance.fd} watches sockets of {len(instance.sockets_by_napi)} NAPI instances "
                f"({mix}); the kernel would follow one and let the others wait for the suspend timer"
            )
    for napi_id in sorted({napi_id for instance in found.instances for napi_id in instance.sockets_by_napi}):
        located = found.napis.get(napi_id)
        if located is None:
            return f"NAPI {napi_id} belongs to no device of its network namespace or of ours"
        if located.napi.settings.irq_suspend_timeout_ns is None:
            return "this kernel has no IRQ suspension (irq-suspend-timeout, Linux 6.13)"
    return None
