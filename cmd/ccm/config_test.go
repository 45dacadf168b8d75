package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// upstreamConfig has every key of the configuration file of UpCloud's own CCM, as its documentation writes them.
const upstreamConfig = `
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: CCMConfig
metadata:
  name: ccm
data:
  clusterDeploymentMode: ""
  apiCredentials:
    user: file-user
    password: file-password
  clusterName: production
  clusterID: 0d4f1e3b-8a5e-4a84-9b67-6a4d7a2f4c11
  nodeScopeSelector:
    matchLabels:
      pool: workers
    matchExpressions:
      - {key: node-role.kubernetes.io/control-plane, operator: DoesNotExist}
  loadBalancerPlan: production-small
  loadBalancerMaxBackendMembers: 50
`

func clearEnvironment(t *testing.T) {
	for _, name := range []string{"UPCLOUD_TOKEN", "UPCLOUD_USERNAME", "UPCLOUD_PASSWORD", "UPCLOUD_API_TOKEN", "UPCLOUD_API_USER",
		"UPCLOUD_API_PASSWORD", "UPCLOUD_DEBUG_API_BASE_URL", "UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY"} {
		t.Setenv(name, "")
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadBalancerCheckInterval(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", "t")
	for text, want := range map[string]time.Duration{
		"data: {}": 0, "data: {loadBalancerCheckInterval: 2m}": 2 * time.Minute, "data: {loadBalancerCheckInterval: 0s}": -1,
	} {
		got, err := loadConfig(flags{}, writeFile(t, text))
		if err != nil || got.loadBalancer.CheckInterval != want || len(got.warnings) > 0 {
			t.Errorf("%s: %s, %v, %q", text, got.loadBalancer.CheckInterval, err, got.warnings)
		}
	}
}

func TestUpstreamConfigFile(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_API_USER", "env-user")
	t.Setenv("UPCLOUD_API_PASSWORD", "env-password")
	got, err := loadConfig(flags{}, writeFile(t, upstreamConfig))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(got.cloud.CredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	token, user, password, err := got.cloud.ParseCredentials(text)
	if token != "" || user != "file-user" || password != "file-password" || err != nil {
		t.Errorf("credentials of %s, %v: the file wins over the environment", user, err)
	}
	if len(got.warnings) > 0 {
		t.Errorf("warnings %q of a file without a fault", got.warnings)
	}
	lb := got.loadBalancer
	if lb.ClusterName != "production" || lb.ClusterID != "0d4f1e3b-8a5e-4a84-9b67-6a4d7a2f4c11" || lb.Plan != "production-small" ||
		lb.MaxMembers != 50 || lb.Status != settings.StatusHostname {
		t.Errorf("load balancers: %+v", lb)
	}
	for _, test := range []struct {
		labels labels.Set
		want   bool
	}{
		{labels.Set{"pool": "workers"}, true},
		{labels.Set{"pool": "workers", "node-role.kubernetes.io/control-plane": ""}, false},
		{nil, false},
	} {
		if got := got.instances.Scope.Matches(test.labels); got != test.want {
			t.Errorf("scope matches %v: %v", test.labels, got)
		}
	}
}

// YAML makes true of a y: all load balancers would be called true_… for good. A value of credentials is not repeated.
func TestTextsThatYAMLReadsAsSomethingElse(t *testing.T) {
	clearEnvironment(t)
	_, err := loadConfig(flags{}, writeFile(t, "data:\n  clusterName: y\n  clusterID: 010\n  apiCredentials: {token: 1e10}\n"+
		"  sharedLoadBalancers: [{loadBalancer: web, namespaces: [on]}]\n  nodeScopeSelector: {matchLabels: {pool: no}}"))
	if err == nil || strings.Contains(err.Error(), "1e10") {
		t.Fatal(err)
	}
	for _, part := range []string{"data.clusterName (line 2): YAML reads its value as a boolean", "data.clusterID (line 3)", "data.apiCredentials.token (line 4)",
		"data.sharedLoadBalancers[0].namespaces[0] (line 5)", "data.nodeScopeSelector.matchLabels.pool (line 6)", "put it in quotes"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
	if _, _, _, err := credentialsIn([]byte("data: {clusterName: y, apiCredentials: {token: 1e10}}")); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("credentials that changed: %v", err)
	}
	if token, _, _, err := credentialsIn([]byte("data: {clusterName: y, apiCredentials: {token: 12345}}")); err != nil || token != "12345" {
		t.Errorf("a token of digits: %q, %v", token, err)
	}
}

// UpCloud's own CCM takes no notice of keys that it does not know; here they are told, and do no more.
func TestUnknownKeysAreTold(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", "env-token")
	path := writeFile(t, "data: {clusterNam: x, clusterID: prod}")
	got, err := loadConfig(flags{}, path)
	if err != nil || got.loadBalancer.ClusterID != "prod" || len(got.warnings) != 1 {
		t.Fatal(got, err)
	}
	for _, part := range []string{path, `unknown field "clusterNam"`, "remove or correct it"} {
		if !strings.Contains(got.warnings[0], part) {
			t.Errorf("warning %q lacks %q", got.warnings[0], part)
		}
	}
}

func TestConfigOfNodes(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", "env-token")
	got, err := loadConfig(flags{}, writeFile(t, "data: {nodePrivateNetworks: [10.0.0.0/24], serverLabelPrefix: node., maxMissingServersPercent: 50}"))
	if err != nil || !slices.Equal(got.instances.PrivateNetworks, []string{"10.0.0.0/24"}) || got.instances.ServerLabelPrefix != "node." ||
		got.instances.MaxMissing != 50 {
		t.Errorf("nodes: %+v, %v", got.instances, err)
	}
}

func TestConfigWithoutFile(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", "env-token")
	got, err := loadConfig(flags{loadBalancerStatus: "ip"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if got.cloud.Token != "env-token" || got.loadBalancer.Status != settings.StatusIP || !got.instances.Scope.Matches(labels.Set{}) {
		t.Errorf("config: %v, %+v, scope %v", got.cloud, got.loadBalancer, got.instances.Scope)
	}
	if got, err = loadConfig(flags{credentialsDir: "/secret"}, ""); err != nil || got.cloud.CredentialsDir != "/secret" || got.cloud.Token != "" {
		t.Errorf("config: %v, %v: the directory wins", got.cloud, err)
	}
}

func TestRoutesAreConfiguredWhenAskedFor(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", "env-token")
	path := writeFile(t, "data: {clusterID: c, routerUUID: 04AA0000-0000-4000-8000-000000000000, createRouter: true, manageSourceIPFiltering: true}")
	got, err := loadConfig(flags{}, path)
	if err != nil || got.routes != nil {
		t.Errorf("not asked for: %+v, %v", got.routes, err)
	}
	if got, err = loadConfig(flags{routes: true}, path); err != nil {
		t.Fatal(err)
	}
	if r := got.routes; r.ClusterID != "c" || r.RouterID != "04aa0000-0000-4000-8000-000000000000" || !r.CreateRouter || !r.ManageSourceFilter {
		t.Errorf("routes: %+v", r)
	}
}

func TestConfigFileFaults(t *testing.T) {
	for text, want := range map[string][]string{
		"kind: ConfigMap":                                                          {"ConfigMap", "CCMConfig"},
		"apiVersion: v1":                                                           {`"v1"`, configVersion},
		"data: {apiCredentials: {user: u}}":                                        {"data.apiCredentials", "password"},
		"data: {loadBalancerMaxBackendMembers: -1}":                                {"loadBalancerMaxBackendMembers", "-1"},
		"data: {loadBalancerMaxBackendMembers: many}":                              {"loadBalancerMaxBackendMembers"},
		"data: {loadBalancerStatus: dns}":                                          {"data.loadBalancerStatus", "dns", "hostname"},
		"data: {nodePrivateNetworks: [10.0.0.0/40]}":                               {"data.nodePrivateNetworks", "10.0.0.0/40"},
		"data: {loadBalancerCheckInterval: 5s}":                                    {"data.loadBalancerCheckInterval", "5s", "30s or more"},
		"data: {loadBalancerCheckInterval: -1m}":                                   {"data.loadBalancerCheckInterval", "-1m0s", "0 to never look"},
		"data: {maxMissingServersPercent: 0}":                                      {"data.maxMissingServersPercent", "0", "1 to 100"},
		"data: {nodeScopeSelector: {matchExpressions: [{key: a, operator: Is}]}}":  {"data.nodeScopeSelector", "Is"},
		"data: {adoptableLoadBalancers: [{namespaces: [a]}]}":                      {"data.adoptableLoadBalancers[0]", "want one of loadBalancer and label"},
		"data: {adoptableLoadBalancers: [{loadBalancer: a b}, {label: env}]}":      {"[0]: loadBalancer is \"a b\"", "[1]: label is \"env\"", "KEY=VALUE"},
		"data: {adoptableLoadBalancers: [{loadBalancer: a, namespaces: [A]}]}":     {"namespaces has \"A\""},
		"data: {routerUUID: my-router}":                                            {"data.routerUUID", "my-router", "leave it out"},
		"- a list":                                                                 {"cannot unmarshal"},
		"data: [":                                                                  {"not YAML"},
		"data: {clusterName: &name prod, clusterID: *name}":                        {"line 1: YAML anchor &name is not allowed", "write values out"},
		"# " + strings.Repeat("x", 1<<20):                                          {"too large: 1048578 bytes, at most 1048576"},
		"data: " + strings.Repeat("[", 32):                                         {"not YAML"},
		"metadata: {a: " + strings.Repeat("[", 31) + strings.Repeat("]", 31) + "}": {"nested too deeply: more than 32"},
		"kind: A\napiVersion: B":                                                   {"CCMConfig", configVersion},
	} {
		_, _, err := parseConfigFile([]byte(text))
		if err == nil {
			t.Errorf("%q is taken", text)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q: %v, want %q in it", text, err, part)
			}
		}
	}
}

// The file is limited also where it is read again for the credentials in it.
func TestConfigFileWithReferencesGivesNoCredentials(t *testing.T) {
	if _, _, _, err := credentialsIn([]byte("data: {apiCredentials: {user: &u a, password: *u}}")); err == nil || !strings.Contains(err.Error(), "anchor &u") {
		t.Errorf("error %v", err)
	}
	if _, user, password, err := credentialsIn([]byte(`data: {apiCredentials: {user: "&u", password: "*u"}}`)); err != nil || user != "&u" || password != "*u" {
		t.Errorf("%q, %q, %v", user, password, err)
	}
	path := writeFile(t, "# "+strings.Repeat("x", 1<<20))
	if _, err := loadConfig(flags{}, path); err == nil || !strings.Contains(err.Error(), path+" is too large") {
		t.Errorf("error %v", err)
	}
}

// The sample of UpCloud's README overrides the default plan with nothing.
func TestEmptyPlanIsTheDefault(t *testing.T) {
	file, _, err := parseConfigFile([]byte(`data: {loadBalancerPlan: ""}`))
	if err != nil || file.Data.LoadBalancerPlan != "" {
		t.Fatal(file, err)
	}
}

// The policy for tenants is read whole or not at all: what is not understood ends the program, as it might allow more than was meant.
func TestPolicyForTenantsIsReadStrictly(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", "env-token")
	for text, want := range map[string]string{
		"{tenants: {}}": "",
		"{tenants: {default: {plans: [production-small], maxLoadBalancers: 5}, namespaces: [{names: [a], hosts: [a.example]}]}}": "",
		"{tenants: {default: {maxLoadBalancer: 5}}}":                `unknown field "maxLoadBalancer"`,
		"{clusterNam: x, tenants: {default: {maxLoadBalancer: 5}}}": `unknown field "maxLoadBalancer"`,
		"{tenants: null}": "set it to {} for the safe defaults",
		"{tenants: {default: {plans: [X Y], maxRules: -1}, namespaces: [{}]}}": `data.tenants: invalid default.plans[0] "X Y"`,
	} {
		got, err := loadConfig(flags{}, writeFile(t, "data: "+text))
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
		if err == nil && (got.loadBalancer.Tenants == nil || len(got.warnings) > 0) {
			t.Errorf("%s: %v, warnings %q", text, got.loadBalancer.Tenants, got.warnings)
		}
	}
	if got, err := loadConfig(flags{}, writeFile(t, "data: {clusterName: x}")); err != nil || got.loadBalancer.Tenants != nil {
		t.Errorf("without it: %v, %v", got.loadBalancer.Tenants, err)
	}
}
