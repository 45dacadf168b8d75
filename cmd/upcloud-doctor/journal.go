package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// journal tells of every change as it is made, so that what was done is known whatever ends the program: a line for people at once, and
// with --journal a line of JSON that is on disk before the change begins.
type journal struct {
	people io.Writer
	file   *os.File // nil for none
	mu     sync.Mutex
}

func openJournal(path string, people io.Writer) (*journal, error) {
	j := &journal{people: people}
	if path == "" {
		return j, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--journal: %w", err)
	}
	j.file = file
	return j, nil
}

// note writes an entry.
func (j *journal) note(entry doctor.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		line, err := json.Marshal(entry)
		if err != nil {
			return err
		}
		if _, err := j.file.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("--journal: %w; nothing more is changed", err)
		}
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("--journal: %w; nothing more is changed", err)
		}
	}
	text := fmt.Sprintf("%s: %s %s %s %q", entry.Outcome, entry.Action, entry.Kind, entry.ID, printable(entry.Title))
	if entry.Error != "" {
		text += ": " + entry.Error
	}
	_, _ = fmt.Fprintln(j.people, text) // a terminal that is gone does not stop what was asked for
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
	}
}
