package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExecHold holds up whoever runs a program: the kernel asks it first (fanotify(7), FAN_OPEN_EXEC_PERM), and it does not
// answer. So a test can be sure of where in its work another program is.
type ExecHold struct {
	group  *os.File
	asking []int32 // file descriptors that name the questions not answered
}

// HoldExec begins to hold up the program at path.
func HoldExec(path string) (*ExecHold, error) {
	group, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("begin to hold up %s: %w", path, err)
	}
	hold := &ExecHold{group: os.NewFile(uintptr(group), "fanotify")}
	if err := unix.FanotifyMark(group, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, path); err != nil {
		return nil, errors.Join(fmt.Errorf("hold up %s: %w", path, err), hold.Release())
	}
	return hold, nil
}

// Wait waits until somebody is about to run the program.
func (h *ExecHold) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = h.group.SetReadDeadline(time.Now()) })
	defer stop()
	var event unix.FanotifyEventMetadata
	buffer := make([]byte, unsafe.Sizeof(event)) // no more than one
	if _, err := h.group.Read(buffer); err != nil {
		return errors.Join(err, ctx.Err())
	}
	if err := binary.Read(bytes.NewReader(buffer), binary.NativeEndian, &event); err != nil {
		return err
	}
	h.asking = append(h.asking, event.Fd)
	return nil
}

// Release lets everybody run the program who still wants to.
func (h *ExecHold) Release() (err error) {
	for _, fd := range h.asking {
		var answer bytes.Buffer
		err = errors.Join(err, binary.Write(&answer, binary.NativeEndian, unix.FanotifyResponse{Fd: fd, Response: unix.FAN_ALLOW}))
		// A question of one that was killed meanwhile is no more: ENOENT.
		if _, failed := h.group.Write(answer.Bytes()); failed != nil && !errors.Is(failed, unix.ENOENT) {
			err = errors.Join(err, failed)
		}
		err = errors.Join(err, unix.Close(int(fd)))
	}
	h.asking = nil
	return errors.Join(err, h.group.Close())
}
