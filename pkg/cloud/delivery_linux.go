package cloud

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// takeBack has the kernel end a connection when the other side does not acknowledge what was sent within deliveryTime. What was
// sent into a broken network is then dropped: otherwise the kernel would deliver it when the network is back, for many
// minutes, however long ago its sender gave up.
func takeBack(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deliveryTime.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
