package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/spf13/pflag"
)

var errDiffers = errors.New("the simulator differs from the recorded API")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
	case errors.Is(err, errDiffers):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
}

type options struct {
	part     string
	only     *regexp.Regexp
	parallel int
}

func parse(args []string, out io.Writer) (*options, error) {
	o := &options{}
	var only string
	f := pflag.NewFlagSet("conformance", pflag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.part, "part", "all", "what to run: sdk (the SDK's live tests), recordings, or all")
	f.StringVar(&only, "only", "", "run the tests and recordings alone whose names match this `pattern`")
	f.IntVar(&o.parallel, "parallel", 16, "how many of the SDK's tests run at a time; they wait most of the time")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if o.part != "sdk" && o.part != "recordings" && o.part != "all" {
		return nil, fmt.Errorf("--part %q: choose one of sdk, recordings, all", o.part)
	}
	if o.parallel < 1 {
		return nil, fmt.Errorf("--parallel %d: give 1 or more", o.parallel)
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return nil, fmt.Errorf("--only: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	sdk, err := findSDK(ctx)
	if err != nil {
		return err
	}
	known, err := readKnown()
	if err != nil {
		return err
	}
	var live, recorded summary
	if o.part != "recordings" {
		if live, err = runLiveTests(ctx, o, sdk, known, out); err != nil {
			return err
		}
	}
	if o.part != "sdk" {
		if recorded, err = replayAll(o, sdk, known, out); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	if o.part != "recordings" {
		fmt.Fprintf(out, "SDK's live tests: %s\n", live)
	}
	if o.part != "sdk" {
		fmt.Fprintf(out, "Recordings: %s\n", recorded)
	}
	if live.failed+recorded.failed > 0 {
		return errDiffers
	}
	return nil
}

// summary counts the tests of one part. Those that are known to differ are neither passed nor failed.
type summary struct{ passed, failed, known int }

func (s summary) String() string {
	text := fmt.Sprintf("%d passed, %d failed", s.passed, s.failed)
	if s.known > 0 {
		text += fmt.Sprintf(" (and %d known to differ)", s.known)
	}
	return text
}
