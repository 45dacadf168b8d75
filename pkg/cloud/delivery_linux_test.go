package cloud

import (
	"net"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"
)

// What a former leader sent into a broken network must not arrive when the network is back.
func TestWhatIsNotDeliveredSoonIsTakenBack(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := overTCP(Config{}).(*http.Transport).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	var failed error
	if err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil || got != int(deliveryTime.Milliseconds()) {
		t.Errorf("the kernel tries for %d ms, error %v; want %s", got, failed, deliveryTime)
	}
}
