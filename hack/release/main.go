// Command release makes a release of the project: programs, images, chart, manifests, and what says what they are made of. It is a
// module of its own, so that its dependencies are not the product's. docs/releasing.md describes its use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/project"
)

const usage = `usage: release COMMAND [FLAGS]

commands:
  check     say what keeps the work tree from being released as a version
  prepare   write a version into manifests, charts and changelog
  build     make a release
  verify    check a release: checksums, images, programs and libraries; as root, run the images' programs
  compare   say in what two releases differ
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "release:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no command\n" + usage)
	}
	flags := flag.NewFlagSet("release "+arguments[0], flag.ContinueOnError)
	var o options
	flags.StringVar(&o.version, "version", "", "version of the release, such as v1.2.3")
	flags.StringVar(&o.tree.Dir, "project", ".", "the project's work tree")
	flags.StringVar(&o.output, "output", "build/release", "where the release is written")
	flags.StringVar(&o.registry, "registry", Placeholder, "registry and folder of the images, as manifests name them")
	flags.StringVar(&o.lock, "lock", "", "a debian-packages.lock of another build: take exactly these packages")
	flags.StringVar(&o.sources, "apt-sources", "", "a file in the form of sources.list(5), deb822, to take Debian packages from; default: the machine's own")
	flags.StringVar(&o.cache, "cache", cacheDir(), "where downloaded Debian packages are kept")
	flags.StringVar(&o.toolchain, "toolchain", "", "Go to build with; default: that of go.mod")
	flags.StringVar(&o.builder, "builder", "", "URI that provenance names as the builder")
	flags.BoolVar(&o.dryRun, "dry-run", false, "take what the changelog has not released yet for the version's changes, to try")
	date := flags.String("date", time.Now().UTC().Format(time.DateOnly), "date of the release, for prepare")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	switch arguments[0] {
	case "check":
		return o.check(ctx)
	case "prepare":
		changed, err := o.tree.Prepare(o.version, *date)
		for _, each := range changed {
			fmt.Println("release: changed", each)
		}
		return err
	case "build":
		return o.build(ctx)
	case "verify":
		return verify(ctx, o.output, os.Geteuid() == 0)
	case "compare":
		if flags.NArg() != 2 {
			return errors.New("compare wants two folders")
		}
		return compare(flags.Arg(0), flags.Arg(1))
	default:
		return fmt.Errorf("%q is no command\n%s", arguments[0], usage)
	}
}

// Placeholder is the registry of a release that was made without naming one, as the Makefile has it, too.
const Placeholder = "registry.example/cloud-provider-upcloud"

// options are what a release is made with.
type options struct {
	version, output, registry, lock, sources, cache, toolchain, builder string
	tree                                                                project.Tree
	dryRun                                                              bool
}

func (o options) check(ctx context.Context) error {
	if err := o.tree.Check(ctx, o.version, o.dryRun); err != nil {
		return fmt.Errorf("%s cannot be released:\n%w", o.version, err)
	}
	return nil
}

func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "cloud-provider-upcloud", "release")
}
