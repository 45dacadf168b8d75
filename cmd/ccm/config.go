package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/routes"
)

// flags are the flags that k8s.io/cloud-provider does not have.
type flags struct {
	credentialsDir     string
	loadBalancerStatus string
	loadBalancerClass  string
	podMembers         bool
	readinessPort      int
	routes             bool // --configure-cloud-routes, which the library has
}

func (f *flags) add(set *pflag.FlagSet) {
	set.StringVar(&f.credentialsDir, "credentials-dir", "", "directory of a mounted secret with the key token, or the keys "+
		"username and password; read again when it changes")
	set.StringVar(&f.loadBalancerStatus, "load-balancer-status", "", "what a Service's status holds of its load balancer: "+
		"hostname (default), ip, or both; wins over loadBalancerStatus in the configuration file")
	set.StringVar(&f.loadBalancerClass, "load-balancer-class", defaultClass, "spec.loadBalancerClass of the Services that the controller "+
		classController+" serves")
	set.BoolVar(&f.podMembers, "load-balancer-pod-members", false, "make the Pods of Services with allocateLoadBalancerNodePorts false "+
		"members of their load balancers, which must reach Pods' addresses; needs the right to watch EndpointSlices")
	set.IntVar(&f.readinessPort, "readiness-port", 0, "port on --bind-address that serves /readyz over HTTP: whether the UpCloud API "+
		"takes the credentials now; 0 serves it nowhere")
}

// config is what the program runs with.
type config struct {
	cloud        cloud.Config
	loadBalancer loadbalancer.Config
	instances    instances.Config
	routes       *routes.Config // nil: not asked for
	warnings     []string
	explain      func(error) error // of the first question to the API
}

// configFile is the file named by --cloud-config. Its form is that of UpCloud's own CCM; what comes from loadBalancerStatus
// on is added.
type configFile struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        map[string]any `json:"metadata,omitempty"`
	Data            struct {
		// ClusterDeploymentMode is accepted and does nothing, as in UpCloud's own CCM.
		ClusterDeploymentMode string `json:"clusterDeploymentMode"`
		APICredentials        struct {
			User     string `json:"user"`
			Password string `json:"password"`
			Token    string `json:"token"`
		} `json:"apiCredentials"`
		ClusterName                   string                  `json:"clusterName"`
		ClusterID                     string                  `json:"clusterID"`
		NodeScopeSelector             metav1.LabelSelector    `json:"nodeScopeSelector"`
		LoadBalancerPlan              string                  `json:"loadBalancerPlan"`
		LoadBalancerMaxBackendMembers int                     `json:"loadBalancerMaxBackendMembers"`
		LoadBalancerStatus            string                  `json:"loadBalancerStatus"`
		LoadBalancerDefaultMode       string                  `json:"loadBalancerDefaultMode"`
		SharedLoadBalancers           []settings.SharedAccess `json:"sharedLoadBalancers"`
		AdoptableLoadBalancers        []settings.Adoptable    `json:"adoptableLoadBalancers"`
		Tenants                       tenantsConfig           `json:"tenants"`
		LoadBalancerCheckInterval     *metav1.Duration        `json:"loadBalancerCheckInterval"`
		NodePrivateNetworks           []string                `json:"nodePrivateNetworks"`
		ServerLabelPrefix             string                  `json:"serverLabelPrefix"`
		MaxMissingServersPercent      *int                    `json:"maxMissingServersPercent"`
		RouterUUID                    string                  `json:"routerUUID"`
		CreateRouter                  bool                    `json:"createRouter"`
		ManageSourceIPFiltering       bool                    `json:"manageSourceIPFiltering"`
	} `json:"data"`
}

// tenantsConfig is data.tenants. That the key is there says that the cluster has tenants.
type tenantsConfig struct{ *tenants.Config }

// UnmarshalJSON refuses what is not understood, also null.
func (c *tenantsConfig) UnmarshalJSON(text []byte) error {
	c.Config = &tenants.Config{}
	return c.Config.UnmarshalJSON(text)
}

// Of the configuration file.
const (
	configKind    = "CCMConfig"
	configVersion = "infrastructure.cluster.x-k8s.io/v1alpha1"
)

// leastCheckInterval keeps load balancers from being looked at so often that the API asks for patience.
const leastCheckInterval = 30 * time.Second

// loadConfig puts flags, file and environment together, and tells every fault of the file at once.
func loadConfig(ours flags, path string) (config, error) {
	var file configFile
	var loaded config
	if path != "" {
		text, err := bounded.ReadFile(path, bounded.File.Bytes)
		if err != nil {
			return config{}, fmt.Errorf("--cloud-config: %w", err)
		}
		var unknown error
		if file, unknown, err = parseConfigFile(text); err != nil {
			return config{}, fmt.Errorf("--cloud-config %s: %w", path, err)
		}
		if unknown != nil {
			loaded.warnings = append(loaded.warnings, fmt.Sprintf("--cloud-config %s: %v: it does nothing, remove or correct it", path, unknown))
		}
	}
	var err error
	if loaded.cloud, err = cloudConfig(ours, file, path); err != nil {
		return config{}, err
	}
	loaded.instances = instancesConfig(file)
	loaded.explain = func(err error) error { return file.refused(ours, path, err) }
	loaded.loadBalancer = loadbalancer.Config{
		ClusterID: file.Data.ClusterID, ClusterName: file.Data.ClusterName,
		Plan: file.Data.LoadBalancerPlan, MaxMembers: file.Data.LoadBalancerMaxBackendMembers,
		DefaultMode: file.Data.LoadBalancerDefaultMode, Shared: file.Data.SharedLoadBalancers,
		Adoptable:  file.Data.AdoptableLoadBalancers,
		Tenants:    file.Data.Tenants.Config,
		PodMembers: ours.podMembers,
	}
	if interval := file.Data.LoadBalancerCheckInterval; interval != nil {
		loaded.loadBalancer.CheckInterval = cmp.Or(interval.Duration, -1)
	}
	status := file.Data.LoadBalancerStatus
	if ours.loadBalancerStatus != "" {
		status = ours.loadBalancerStatus
	}
	if loaded.loadBalancer.Status, err = settings.ParseStatusMode(status); err != nil {
		return config{}, fmt.Errorf("--load-balancer-status: %w", err)
	}
	if ours.routes {
		loaded.routes = &routes.Config{
			ClusterID: file.Data.ClusterID, Scope: loaded.instances.Scope, RouterID: strings.ToLower(file.Data.RouterUUID),
			CreateRouter: file.Data.CreateRouter, ManageSourceFilter: file.Data.ManageSourceIPFiltering,
		}
	}
	return loaded, nil
}

// instancesConfig is what the file says of nodes. parseConfigFile has checked it.
func instancesConfig(file configFile) instances.Config {
	scope, _ := metav1.LabelSelectorAsSelector(&file.Data.NodeScopeSelector)
	if len(file.Data.NodeScopeSelector.MatchLabels) == 0 && len(file.Data.NodeScopeSelector.MatchExpressions) == 0 {
		scope = labels.Everything()
	}
	config := instances.Config{Scope: scope, PrivateNetworks: file.Data.NodePrivateNetworks, ServerLabelPrefix: file.Data.ServerLabelPrefix}
	if limit := file.Data.MaxMissingServersPercent; limit != nil {
		config.MaxMissing = *limit
	}
	return config
}

// parseConfigFile reads the file, and tells every fault of it at once. UpCloud's own CCM takes no notice of keys that it does
// not know, and files live on that: here they are the second answer.
func parseConfigFile(text []byte) (file configFile, unknown, err error) {
	if strict := bounded.File.UnmarshalStrict(text, &file); strict != nil {
		file = configFile{}
		if err := bounded.File.Unmarshal(text, &file); err != nil {
			return configFile{}, nil, withoutPackage(err)
		}
		unknown = withoutPackage(strict)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, misread := range bounded.File.Misreads(text, file) {
		faults = append(faults, misread)
	}
	if file.Kind != "" && file.Kind != configKind {
		fault("kind is %q: want %s", file.Kind, configKind)
	}
	if file.APIVersion != "" && file.APIVersion != configVersion {
		fault("apiVersion is %q: want %s", file.APIVersion, configVersion)
	}
	if (file.Data.APICredentials.User == "") != (file.Data.APICredentials.Password == "") && file.Data.APICredentials.Token == "" {
		fault("data.apiCredentials has only one of user and password: set both, or token alone")
	}
	if _, err := metav1.LabelSelectorAsSelector(&file.Data.NodeScopeSelector); err != nil {
		fault("data.nodeScopeSelector: %w", err)
	}
	if file.Data.LoadBalancerMaxBackendMembers < 0 {
		fault("data.loadBalancerMaxBackendMembers is %d: want 1 or more, or 0 for %d",
			file.Data.LoadBalancerMaxBackendMembers, loadbalancer.DefaultMaxMembers)
	}
	if _, err := settings.ParseStatusMode(file.Data.LoadBalancerStatus); err != nil {
		fault("data.loadBalancerStatus: %w", err)
	}
	if mode := file.Data.LoadBalancerDefaultMode; mode != "" && mode != "tcp" && mode != "http" {
		fault("data.loadBalancerDefaultMode is %q: want tcp (the default), or http as UpCloud's own CCM has it", mode)
	}
	if interval := file.Data.LoadBalancerCheckInterval; interval != nil && interval.Duration != 0 && interval.Duration < leastCheckInterval {
		fault("data.loadBalancerCheckInterval is %s: want %s or more, 0 to never look, or leave it out for %s", interval.Duration,
			leastCheckInterval, loadbalancer.DefaultCheckInterval)
	}
	for i, access := range file.Data.SharedLoadBalancers {
		if err := access.Validate(); err != nil {
			fault("data.sharedLoadBalancers[%d]: %w", i, err)
		}
	}
	for i, adoptable := range file.Data.AdoptableLoadBalancers {
		if err := adoptable.Validate(); err != nil {
			fault("data.adoptableLoadBalancers[%d]: %w", i, err)
		}
	}
	if file.Data.Tenants.Config != nil {
		if err := file.Data.Tenants.Validate(); err != nil {
			fault("data.tenants: %w", err)
		}
	}
	if err := instances.ValidatePrivateNetworks(file.Data.NodePrivateNetworks); err != nil {
		fault("data.nodePrivateNetworks: %w", err)
	}
	if limit := file.Data.MaxMissingServersPercent; limit != nil && (*limit < 1 || *limit > 100) {
		fault("invalid data.maxMissingServersPercent %d: must be 1 to 100; leave it out for no limit", *limit)
	}
	if id := file.Data.RouterUUID; id != "" && (len(id) != 36 || uuid.Validate(id) != nil) {
		fault("data.routerUUID is %q: want the UUID of the router of the nodes' private network, or leave it out to have it found", id)
	}
	return file, unknown, errors.Join(faults...)
}

// withoutPackage cuts off what the YAML library says of itself.
func withoutPackage(err error) error {
	if _, cause, found := strings.Cut(err.Error(), "json: "); found {
		return errors.New(cause)
	}
	return err
}

// cloudConfig chooses the credentials: a directory wins over the file, and the file over the environment.
func cloudConfig(ours flags, file configFile, path string) (cloud.Config, error) {
	given := file.Data.APICredentials
	switch {
	case ours.credentialsDir != "":
		return cloud.Config{CredentialsDir: ours.credentialsDir}, nil
	case given.Token != "" || given.User != "":
		return cloud.Config{CredentialsFile: path, ParseCredentials: credentialsIn}, nil
	}
	fromEnv, err := cloud.ConfigFromEnv()
	if err == nil && fromEnv.Token == "" && fromEnv.Username == "" {
		err = errors.New("no UpCloud credentials: set --credentials-dir, or data.apiCredentials in the --cloud-config file, or " +
			"UPCLOUD_TOKEN, or UPCLOUD_USERNAME and UPCLOUD_PASSWORD")
	}
	return fromEnv, err
}

// credentialsIn takes the credentials out of the configuration file when it has changed. A fault elsewhere in it waits for
// the next start.
func credentialsIn(text []byte) (token, username, password string, err error) {
	var file configFile
	if err := bounded.File.Unmarshal(text, &file); err != nil {
		return "", "", "", withoutPackage(err)
	}
	for _, misread := range bounded.File.Misreads(text, file) {
		if strings.HasPrefix(strings.ToLower(misread.Path), "data.apicredentials.") {
			return "", "", "", misread
		}
	}
	given := file.Data.APICredentials
	return given.Token, given.User, given.Password, nil
}

// refused is what to say when the API does not take the credentials; err already names the setting, unless they came from
// the file.
func (f *configFile) refused(ours flags, path string, err error) error {
	given := f.Data.APICredentials
	if ours.credentialsDir != "" || given.Token == "" && given.User == "" || !errors.Is(err, cloud.ErrUnauthorized) {
		return err
	}
	return fmt.Errorf("the UpCloud API refused the credentials in data.apiCredentials of --cloud-config %s: set them to those of "+
		"an API user, or to a valid token", path)
}

// boolValue is a flag's value.
type boolValue bool

func (b *boolValue) Set(text string) (err error) {
	value, err := strconv.ParseBool(text)
	*b = boolValue(value)
	return err
}
func (b *boolValue) String() string   { return strconv.FormatBool(bool(*b)) }
func (b *boolValue) Type() string     { return "bool" }
func (b *boolValue) IsBoolFlag() bool { return true }
