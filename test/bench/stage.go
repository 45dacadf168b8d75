package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// stageRepetitions is how often each way is measured; they take turns, so that what else the machine does meets both.
const stageRepetitions = 11

// stageFigures compare NodeStage and NodePublish with the same done by hand, in milliseconds: medians.
type stageFigures struct {
	Driver float64 `json:"driver"`
	Hand   float64 `json:"by_hand"`
	Added  float64 `json:"added"`
}

// byHand is what the driver runs to format.
var byHand = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-m0", "-Enodiscard"},
	"xfs":  {"mkfs.xfs", "-q", "-K"},
}

// measureStage tells what NodeStage and NodePublish add to mkfs and mount, on new volumes and on those that have their
// filesystem.
func measureStage(ctx context.Context, program string) (map[string]stageFigures, error) {
	m, err := newMachine(ctx, program)
	if err != nil {
		return nil, err
	}
	figures, err := m.measureStages(ctx)
	if err = errors.Join(err, m.close()); err != nil {
		return nil, err
	}
	fmt.Printf("\nNodeStage + NodePublish, medians of %d     driver    by hand      added\n", stageRepetitions)
	for _, name := range []string{"ext4, new", "ext4, in use before", "xfs, new", "xfs, in use before"} {
		f := figures[name]
		fmt.Printf("  %-34s %7.1f ms %7.1f ms %7.1f ms\n", name, f.Driver, f.Hand, f.Added)
	}
	return figures, nil
}

func (m *machine) measureStages(ctx context.Context) (map[string]stageFigures, error) {
	figures := make(map[string]stageFigures)
	for _, fsType := range []string{"ext4", "xfs"} {
		var driven, done struct{ first, again []time.Duration }
		for n := range stageRepetitions + 1 {
			first, again, err := m.stageByDriver(ctx, fsType)
			if err != nil {
				return nil, err
			}
			firstHand, againHand, err := m.stageByHand(ctx, fsType)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				continue // programs were read from disk for the first time
			}
			driven.first, driven.again = append(driven.first, first), append(driven.again, again)
			done.first, done.again = append(done.first, firstHand), append(done.again, againHand)
		}
		figures[fsType+", new"] = compare(driven.first, done.first)
		figures[fsType+", in use before"] = compare(driven.again, done.again)
	}
	return figures, nil
}

func compare(driver, hand []time.Duration) stageFigures {
	f := stageFigures{Driver: median(driver), Hand: median(hand)}
	f.Added = f.Driver - f.Hand
	return f
}

func median(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2].Microseconds()) / 1000
}

func (m *machine) stageByDriver(ctx context.Context, fsType string) (first, again time.Duration, err error) {
	id, _, err := m.addDisk(ctx)
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := m.bring(ctx, id, fsType); err != nil {
		return 0, 0, err
	}
	first = time.Since(begin)
	if err := m.leave(ctx, id); err != nil {
		return 0, 0, err
	}
	begin = time.Now()
	if err := m.bring(ctx, id, fsType); err != nil {
		return 0, 0, err
	}
	return first, time.Since(begin), m.leave(ctx, id)
}

func (m *machine) stageByHand(ctx context.Context, fsType string) (first, again time.Duration, err error) {
	id, device, err := m.addDisk(ctx)
	if err != nil {
		return 0, 0, err
	}
	path := filepath.Join(m.dir, "hand", id)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return 0, 0, err
	}
	mkfs := append(slices.Clone(byHand[fsType]), device)
	begin := time.Now()
	if err := errors.Join(run(mkfs[0], mkfs[1:]...), run("mount", device, path)); err != nil {
		return 0, 0, err
	}
	first = time.Since(begin)
	if err := run("umount", path); err != nil {
		return 0, 0, err
	}
	begin = time.Now()
	if err := run("mount", device, path); err != nil {
		return 0, 0, err
	}
	return first, time.Since(begin), run("umount", path)
}
