// Package suite runs the specs of load balancers that Kubernetes has in its own end-to-end tests on a running local cluster, as
// a machine of an administrator outside the cluster would. It says of each spec whether it passed, and of each that did not, why
// that is right, which it proves anew every time (see left-out.yaml).
package suite

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

//go:embed policy.yaml
var policy []byte

// Config says what to run.
type Config struct {
	Programs string // folder of e2e.test and ginkgo
	Output   string // folder of what is left to read: junit.xml, and the suite's own words
	Short    bool   // without the specs that take more than ten minutes
}

// parallel is how many specs run at a time: they wait more than they work.
const parallel = 6

type suite struct {
	*steps.Runner
	Config
	list     []leftOut
	outcomes []outcome
}

// Run runs the specs. The answer counts the steps on the way and the specs.
func Run(ctx context.Context, runner *steps.Runner, config Config) steps.Result {
	s := &suite{Runner: runner, Config: config}
	if !runner.Run(ctx, []steps.Step{{Name: "the list of specs that do not pass is read", Do: s.readList}}) {
		return runner.Result
	}
	before := append(runner.Install(),
		steps.Step{Name: "load balancers are published by address, and on the private network where the spec needs it",
			Do: s.applyPolicy, Check: s.policyWorks})
	if !runner.Run(ctx, append(before, s.proofs()...)) {
		return runner.Result
	}
	runner.Report("running the specs, minutes without a word here; " + s.log() + " has them as they end")
	run := steps.Step{Name: "Kubernetes' own specs of load balancers are run", Limit: time.Hour, Do: s.run}
	if !runner.Run(ctx, []steps.Step{run}) {
		return runner.Result
	}
	runner.Together(ctx, s.tracks()...)
	runner.Run(ctx, []steps.Step{{Name: "no load balancer is left in the account", Check: s.noneLeft}})
	runner.Report(s.summary() + "; JUnit: " + s.junit())
	return runner.Result
}

func (s *suite) readList(context.Context) (err error) {
	s.list, err = parseLeftOut(leftOutYAML)
	return err
}

// tracks are the specs, each a step of its own that does not wait for another.
func (s *suite) tracks() (tracks [][]steps.Step) {
	for _, o := range s.outcomes {
		name := strings.TrimPrefix(o.spec.spec(), "[sig-network] ")
		if o.reason != "" {
			name = "left out: " + name
		}
		tracks = append(tracks, []steps.Step{{Name: name,
			Do: func(context.Context) error { return o.err },
			Check: func(context.Context) (string, error) {
				if o.reason != "" {
					return o.reason, nil
				}
				return fmt.Sprintf("passed in %.0f s", o.spec.Time), nil
			}}})
	}
	return tracks
}

// summary says plainly what became of the specs.
func (s *suite) summary() string {
	passed, failed, left := 0, 0, 0
	for _, o := range s.outcomes {
		switch {
		case o.err != nil:
			failed++
		case o.reason != "":
			left++
		default:
			passed++
		}
	}
	return fmt.Sprintf("%d specs: %d passed, %d failed, %d left out for the reasons given", len(s.outcomes), passed, failed, left)
}

// run runs ginkgo on the workstation, and reads what it says.
func (s *suite) run(ctx context.Context) error {
	if err := os.MkdirAll(s.Output, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "e2e-lb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := s.runGinkgo(ctx, scratch); err != nil {
		return err
	}
	specs, around, err := readReport(filepath.Join(scratch, "junit_01.xml"))
	if err != nil {
		return fmt.Errorf("the suite left no report; its words are in %s: %w", s.log(), err)
	}
	if s.outcomes, err = judge(specs, s.list, s.Short); err != nil {
		return err
	}
	for _, c := range around {
		err = errors.Join(err, fmt.Errorf("%s: %s", c.Name, c.said()))
	}
	return errors.Join(err, writeReport(s.junit(), s.outcomes))
}

func (s *suite) junit() string { return filepath.Join(s.Output, "junit.xml") }

func (s *suite) log() string { return filepath.Join(s.Output, "ginkgo.log") }

// runGinkgo has the suite's processes in a namespace of their own, so that none outlives ginkgo.
func (s *suite) runGinkgo(ctx context.Context, scratch string) error {
	workstation, err := machine.NamespaceOf(s.Status.WorkstationPID)
	if err != nil {
		return err
	}
	defer workstation.Close()
	process, err := machine.NewSpawner().Start(machine.Program{
		Name: "ginkgo", Namespace: workstation, Clone: unix.CLONE_NEWPID, LogDir: s.Output, Dir: scratch,
		Env: []string{"HOME=" + scratch, "TMPDIR=" + scratch}, // kubectl and the suite leave things there
		Args: []string{filepath.Join(s.Programs, "ginkgo"), "--no-color", "-v", fmt.Sprintf("--procs=%d", parallel), "--timeout=58m",
			"--focus", regexp.QuoteMeta(specsOf), "--skip", skipped(s.list, s.Short), filepath.Join(s.Programs, "e2e.test"), "--",
			"--provider=skeleton", fmt.Sprintf("--num-nodes=%d", s.Nodes), "--kubeconfig=" + s.Status.WorkstationKubeconfig, "--kubectl-path=" + s.Status.Kubectl,
			"--report-dir=" + scratch},
	})
	if err != nil {
		return err
	}
	select {
	case <-process.Done(): // the report tells more than its exit status
		return nil
	case <-ctx.Done():
		process.Stop(context.WithoutCancel(ctx), 20*time.Second)
		return ctx.Err()
	}
}

func (s *suite) applyPolicy(ctx context.Context) error {
	_, err := s.Kubectl(ctx, policy, "apply", "-f", "-")
	return err
}

// policyWorks asks for Services without making them, until the API server knows the policy.
func (s *suite) policyWorks(ctx context.Context) (string, error) {
	pretend := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for name, want := range map[string]string{"any": "", "lb-sourcerange": "private"} {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}
		made, err := s.Client.CoreV1().Services(metav1.NamespaceDefault).Create(ctx, service, pretend)
		if err != nil {
			return "", err
		}
		const prefix = "service.beta.kubernetes.io/upcloud-load-balancer-"
		status, visibility := made.Annotations[prefix+"status"], made.Annotations[prefix+"visibility"]
		if status != "ip" || visibility != want {
			return "", fmt.Errorf("Service %s has the status %q and the visibility %q", name, status, visibility)
		}
	}
	return "", nil
}

func (s *suite) noneLeft(ctx context.Context) (string, error) {
	balancers, err := s.Account.GetLoadBalancers(ctx, &request.GetLoadBalancersRequest{})
	if err != nil {
		return "", err
	}
	if len(balancers) > 0 {
		return "", fmt.Errorf("there are %d, the first is %s", len(balancers), balancers[0].Name)
	}
	return "", nil
}
