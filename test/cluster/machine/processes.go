package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Descendants are the processes below pid, children before grandchildren. Processes in containers of a machine are below
// the machine's first one: it takes in what their starters leave.
func Descendants(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		if parent, ok := parentOf(path); ok {
			children[parent] = append(children[parent], child)
		}
	}
	var found []int
	for next := children[pid]; len(next) > 0; {
		found = append(found, next...)
		var below []int
		for _, child := range next {
			below = append(below, children[child]...)
		}
		next = below
	}
	return found, nil
}

// parentOf reads the parent from a process's stat file (proc_pid_stat(5)): the second field after the name, which is in
// parentheses and may hold anything.
func parentOf(path string) (pid int, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false // it has ended
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	pid, err = strconv.Atoi(fields[1])
	return pid, err == nil
}

// FindProcess is the one process below pid whose command line holds all of the arguments.
func FindProcess(pid int, arguments ...string) (int, error) {
	below, err := Descendants(pid)
	if err != nil {
		return 0, err
	}
	var found []int
	for _, candidate := range below {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", candidate))
		if err != nil {
			continue // it has ended
		}
		if holdsAll(strings.Split(string(line), "\x00"), arguments) {
			found = append(found, candidate)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d processes of the machine have the arguments %q, want 1", len(found), arguments)
	}
	return found[0], nil
}

func holdsAll(line, arguments []string) bool {
	for _, argument := range arguments {
		held := false
		for _, word := range line {
			held = held || word == argument
		}
		if !held {
			return false
		}
	}
	return true
}
