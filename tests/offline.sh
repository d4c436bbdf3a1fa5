#!/bin/sh
# Runs a command, and every process it starts (notebook kernels too), in a network namespace that has only the loopback.
# Where the system does not allow that (not Linux, or user namespaces switched off), it says so and runs the command as it is.
if unshare -rn true 2>/dev/null; then
    exec env COURSE_OFFLINE=1 unshare -rn sh -c '
        ip link set lo up 2>/dev/null || "$0" -c "
import fcntl, socket, struct
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), SIOCSIFFLAGS, struct.pack(\"16sh\", b\"lo\", IFF_UP_RUNNING))"
        exec "$0" "$@"' "$@"
fi
echo "note: this system does not allow network namespaces, so the network is not refused in this run" >&2
exec "$@"
