package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

// newAdmissionCommand returns the command that prints the admission policy of a configuration file.
func newAdmissionCommand() *cobra.Command {
	var path string
	command := &cobra.Command{
		Use: "admission-policy --cloud-config FILE", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		Short: "Print the ValidatingAdmissionPolicy that refuses what the policy for tenants does not allow",
		RunE: func(command *cobra.Command, _ []string) error {
			text, err := admissionPolicy(path)
			if err == nil {
				_, err = fmt.Fprint(command.OutOrStdout(), text)
			}
			return err
		},
	}
	usage := func(command *cobra.Command) error {
		_, err := fmt.Fprintf(command.OutOrStdout(), "%s.\n\nUsage:\n  ccm %s | kubectl apply -f -\n\n%s", command.Short, command.Use,
			command.LocalNonPersistentFlags().FlagUsages())
		return err
	}
	command.SetUsageFunc(usage)
	command.SetHelpFunc(func(command *cobra.Command, _ []string) { _ = usage(command) })
	command.Flags().StringVar(&path, "cloud-config", "", "configuration file with data.tenants")
	return command
}

// admissionPolicy is the admission policy of a configuration file and its binding, in YAML.
func admissionPolicy(path string) (string, error) {
	if path == "" {
		return "", errors.New("no configuration file; set --cloud-config to the file that ccm runs with")
	}
	read, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--cloud-config: %w", err)
	}
	file, unknown, err := parseConfigFile(read)
	if err == nil {
		err = unknown // which may be what was meant
	}
	if err != nil {
		return "", fmt.Errorf("--cloud-config %s: %w", path, err)
	}
	if file.Data.Tenants.Config == nil {
		return "", fmt.Errorf("--cloud-config %s has no data.tenants; set it to {} for the safe defaults", path)
	}
	var grants []tenants.Grant
	for _, entry := range file.Data.SharedLoadBalancers {
		grants = append(grants, tenants.Grant{LoadBalancer: entry.LoadBalancer, Namespaces: entry.Namespaces})
	}
	plan := cmp.Or(file.Data.LoadBalancerPlan, loadbalancer.DefaultPlan)
	policy, binding := tenants.AdmissionPolicy(file.Data.Tenants.Config, plan, settings.AnnotationPrefix, grants)
	out := "# Made by ccm admission-policy from the key data.tenants of the CCM's configuration. Make it again when that changes.\n"
	for i, object := range []any{policy, binding} {
		text, err := yaml.Marshal(object)
		if err != nil {
			return "", err
		}
		if i > 0 {
			out += "---\n"
		}
		out += string(text)
	}
	return out, nil
}
