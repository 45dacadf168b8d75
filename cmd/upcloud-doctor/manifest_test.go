package main

import (
	"os"
	"path"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"
)

// The Jobs of deploy/kubernetes/doctor run this program, with flags that it has, and remove nothing.
func TestTheJobsOnlyLook(t *testing.T) {
	for _, file := range []string{"job.yaml", "job-load-balancers.yaml"} {
		t.Run(file, func(t *testing.T) { onlyLooks(t, file) })
	}
}

func onlyLooks(t *testing.T, file string) {
	manifest, err := os.ReadFile("../../deploy/kubernetes/doctor/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var job batchv1.Job
	if err := yaml.UnmarshalStrict(manifest, &job); err != nil {
		t.Fatal(err)
	}
	container := job.Spec.Template.Spec.Containers[0]
	command, flags, err := newCommand().Find(container.Args)
	if err != nil {
		t.Fatal(err)
	}
	if command.Name() == "upcloud-doctor" {
		t.Errorf("%q names no command", container.Args)
	}
	if err := command.ParseFlags(flags); err != nil {
		t.Errorf("the arguments %q: %v", container.Args, err)
	}
	fix, err := command.Flags().GetBool("fix")
	if err != nil || fix {
		t.Errorf("--fix is %t, %v", fix, err)
	}
	folder := command.Flags().Lookup("credentials-dir").Value.String()
	if mounts := container.VolumeMounts; len(mounts) != 1 || mounts[0].MountPath != folder {
		t.Errorf("the credentials are mounted at %v and looked for in %s", mounts, folder)
	}

	name, _, _ := strings.Cut(path.Base(container.Image), ":")
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{" AS " + name + "\n", "ENTRYPOINT [\"/" + name + "\"]\n"} {
		if !strings.Contains(string(dockerfile), line) {
			t.Errorf("the Dockerfile has no %q for the image %s", line, container.Image)
		}
	}
}
