package machine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestHoldExec(t *testing.T) {
	needRoot(t)
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	hold, err := HoldExec(program)
	if err != nil {
		t.Skipf("the kernel has no fanotify permission events: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- exec.Command(program).Run() }()
	if err := hold.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Errorf("the program ran (%v) while it was held up", err)
	default:
	}
	if err := hold.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the program, once released: %v", err)
	}
}

func TestHoldExecWaitEndsWithItsContext(t *testing.T) {
	needRoot(t)
	hold, err := HoldExec(os.Args[0])
	if err != nil {
		t.Skipf("the kernel has no fanotify permission events: %v", err)
	}
	defer func() { _ = hold.Release() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := hold.Wait(ctx); err == nil {
		t.Error("Wait saw somebody run the program")
	}
}
