// Command bench measures what the programs cost and how fast they are, on the simulated UpCloud: `make bench`; as root also
// what the node plugin adds to mkfs and mount on real disks. It prints
// tables, and writes the same figures to a file for comparison between versions. It asserts nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// figures are the results by section; each section is its own struct or map.
type figures map[string]any

func main() {
	output := pflag.String("output", "build/bench.json", "file to write the figures to; other sections in it are kept")
	only := pflag.String("only", "", "measure this section alone: api_calls, list, attach_throughput, stage_publish_ms, rss_mb, ccm, lb or fairness")
	pflag.Parse()
	klog.LogToStderr(false)
	klog.SetOutput(nowhere{})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *output, *only); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// nowhere takes the drivers' logs: they would be measured too.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func measure(ctx context.Context, output, only string) error {
	program, remove, err := buildDriver(ctx)
	if err != nil {
		return err
	}
	defer remove()
	results := figures{}
	sections := []struct {
		name    string
		measure func(context.Context) (any, error)
	}{
		{"api_calls", measureCalls},
		{"list", measureList},
		{"attach_throughput", measureAttach},
		{"stage_publish_ms", func(ctx context.Context) (any, error) { return measureStage(ctx, program) }},
		{"rss_mb", func(ctx context.Context) (any, error) { return measureMemory(ctx, program) }},
		{"ccm", measureCCM},
		{"lb", measureLB},
		{"fairness", measureFairness},
	}
	var names []string
	for _, section := range sections {
		names = append(names, section.name)
	}
	if only != "" && !slices.Contains(names, only) {
		return fmt.Errorf("--only: there is no section %q: use one of %s", only, strings.Join(names, ", "))
	}
	for _, section := range sections {
		if only != "" && section.name != only {
			continue
		}
		if section.name == "stage_publish_ms" && noDisks() != "" {
			fmt.Println("\nNodeStage and NodePublish were not measured:", noDisks())
			continue
		}
		if (section.name == "ccm" || section.name == "lb" || section.name == "fairness") && noKubernetes() != "" {
			fmt.Printf("\nThe CCM (%s) was not measured: %s\n", section.name, noKubernetes())
			continue
		}
		figure, err := section.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
		results[section.name] = figure
	}
	if stages, measured := results["stage_publish_ms"].(map[string]stageFigures); measured {
		results["stage_publish_added_ms"] = stages["ext4, new"].Added
	}
	if list, measured := results["list"].(listFigures); measured {
		list.split(results)
	}
	if ccm, measured := results["ccm"].(ccmFigures); measured {
		ccm.split(results)
	}
	if lb, measured := results["lb"].(lbFigures); measured {
		lb.split(results)
	}
	if fair, measured := results["fairness"].(fairFigures); measured {
		fair.split(results)
	}
	return results.write(output)
}

// write puts the figures into the file, beside those that other benchmarks have put there.
func (f figures) write(path string) error {
	all := figures{}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s (delete it if it is damaged): %w", path, err)
	}
	for section, figure := range f {
		all[section] = figure
	}
	if text, err = json.MarshalIndent(all, "", "  "); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fmt.Println("\nfigures:", path)
	return os.WriteFile(path, append(text, '\n'), 0o600)
}
