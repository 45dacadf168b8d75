package main

import (
	"os"
	"path"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The Jobs of deploy/kubernetes/doctor run this program, with flags that it has, and change nothing. The CronJobs of doctor-fix do what
// can be taken back for a week.
func TestTheJobsOnlyLook(t *testing.T) {
	for _, file := range []string{"job.yaml", "job-load-balancers.yaml"} {
		t.Run(file, func(t *testing.T) {
			var job batchv1.Job
			read(t, "doctor/"+file, &job)
			runsThis(t, job.Spec.Template.Spec.Containers[0], false)
		})
	}
	for _, file := range []string{"cronjob-storage.yaml", "cronjob-load-balancers.yaml"} {
		t.Run(file, func(t *testing.T) {
			var job batchv1.CronJob
			read(t, "doctor-fix/"+file, &job)
			runsThis(t, job.Spec.JobTemplate.Spec.Template.Spec.Containers[0], true)
		})
	}
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	manifest, err := os.ReadFile("../../deploy/kubernetes/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(manifest, into); err != nil {
		t.Fatal(err)
	}
}

func runsThis(t *testing.T, container corev1.Container, fixes bool) {
	t.Helper()
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
	if err != nil || fix != fixes {
		t.Errorf("--fix is %t, %v", fix, err)
	}
	if now, err := command.Flags().GetBool("now"); err != nil || now {
		t.Errorf("--now is %t, %v", now, err)
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

// Whoever opens the page reads first what the program can never do.
func TestThePageBeginsWithWhatIsNeverDone(t *testing.T) {
	page, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	head := strings.Join(strings.SplitN(string(page), "\n", 11)[:10], "\n")
	for _, promise := range []string{"can never", "UID", "attached", "members", "Terraform", "backup", "plan", "detach"} {
		if !strings.Contains(head, promise) {
			t.Errorf("the first ten lines do not say %q:\n%s", promise, head)
		}
	}
}
