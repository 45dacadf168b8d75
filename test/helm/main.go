package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/manifests"
)

const usage = `usage:
  helm manifests                              write deploy/kubernetes and the table of the chart's README
  helm release [--registry R] [--version V]   write the single files of a release into build/release
  helm images [--values FILE]                 print all images of the chart; with a file of values, those that it needs`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("helm", flag.ExitOnError)
	project := flags.String("project", "../..", "folder of the project")
	registry := flags.String("registry", "", "registry of this project's images, with a path if need be")
	version := flags.String("version", "", "tag of this project's images")
	values := flags.String("values", "", "file with values of the chart")
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	if len(args) == 0 {
		return fmt.Errorf("no command\n%s", usage)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "manifests":
		return manifests.Write(*project)
	case "release":
		return manifests.WriteRelease(*project, *registry, *version, filepath.Join(*project, "build", "release"))
	case "images":
		return images(*project, *values)
	}
	return fmt.Errorf("no command %q\n%s", args[0], usage)
}

// everything switches all programs on.
const everything = `csi: {snapshots: enabled}
snapshotController: {enabled: true}
doctor: {enabled: true}
`

func images(project, file string) error {
	values := everything
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		values = string(text)
	}
	rendered, err := chart.Render(chart.Options{Project: project, Values: values})
	if err != nil {
		return err
	}
	names, err := manifests.Images(rendered)
	for _, name := range names {
		fmt.Println(name)
	}
	return err
}
