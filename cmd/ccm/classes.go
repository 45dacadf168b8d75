package main

import (
	"bytes"
	"context"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	servicehelpers "k8s.io/cloud-provider/service/helpers"
	genericcontrollermanager "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
)

const (
	// classController is the name of the controller that serves the Services of our loadBalancerClass, for --controllers.
	classController = "service-lb-class-controller"
	// defaultClass is that class.
	defaultClass = "upcloud.com/load-balancer"
	// classFinalizer holds such Services. It is not the finalizer that all cloud providers share: on a cluster where another
	// cloud controller manager runs, that one would delete the load balancer of a Service that goes, whatever its class.
	classFinalizer = "upcloud.com/load-balancer-cleanup"
)

// The service controller of k8s.io/cloud-provider leaves Services with a loadBalancerClass alone. The controller of our class is
// that same one with another view (classView): it sees the Services of the class as if they had none, and no others. Its patches
// (classClient) have classFinalizer in place of the shared one.

// constructors are the controllers of the library and ours.
func constructors(class *string) map[string]app.ControllerInitFuncConstructor {
	all := maps.Clone(app.DefaultInitFuncConstructors)
	all[names.ServiceLBController] = serviceConstructor(func(
		cloud cloudprovider.Interface, client kubernetes.Interface, config *appconfig.CompletedConfig,
	) (*fairness.Controller, error) {
		core := config.SharedInformers.Core().V1()
		return newServiceController(cloud, client, core.Services(), core.Nodes(), config.ComponentConfig.KubeCloudShared.ClusterName)
	})
	all[classController] = serviceConstructor(func(
		cloud cloudprovider.Interface, client kubernetes.Interface, config *appconfig.CompletedConfig,
	) (*fairness.Controller, error) {
		return newClassController(cloud, client, config.SharedInformers, *class, config.ComponentConfig.KubeCloudShared.ClusterName)
	})
	return all
}

// serviceConstructor is a controller of Services.
func serviceConstructor(
	make func(cloudprovider.Interface, kubernetes.Interface, *appconfig.CompletedConfig) (*fairness.Controller, error),
) app.ControllerInitFuncConstructor {
	return app.ControllerInitFuncConstructor{
		InitContext: app.ControllerInitContext{ClientName: "service-controller"},
		Constructor: func(
			initContext app.ControllerInitContext, config *appconfig.CompletedConfig, cloud cloudprovider.Interface,
		) app.InitFunc {
			return func(ctx context.Context, manager genericcontrollermanager.ControllerContext) (controller.Interface, bool, error) {
				services, err := make(cloud, config.ClientBuilder.ClientOrDie(initContext.ClientName), config)
				if err != nil {
					return nil, false, err
				}
				go services.Run(ctx, int(config.ComponentConfig.ServiceController.ConcurrentServiceSyncs), manager.ControllerManagerMetrics)
				return nil, true, nil
			}
		},
	}
}

// newClassController makes the controller.
func newClassController(
	cloud cloudprovider.Interface, client kubernetes.Interface, shared informers.SharedInformerFactory, class, clusterName string,
) (*fairness.Controller, error) {
	core := shared.Core().V1()
	return newServiceController(cloud, classClient{client}, classView{core.Services(), class}, core.Nodes(), clusterName)
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

// classClient says classFinalizer in patches of Services.
type classClient struct{ kubernetes.Interface }

func (c classClient) CoreV1() typedv1.CoreV1Interface { return classCore{c.Interface.CoreV1()} }

type classCore struct{ typedv1.CoreV1Interface }

func (c classCore) Services(namespace string) typedv1.ServiceInterface {
	return classServices{c.CoreV1Interface.Services(namespace)}
}

type classServices struct{ typedv1.ServiceInterface }

func (c classServices) Patch(
	ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string,
) (*v1.Service, error) {
	patch = bytes.ReplaceAll(patch, []byte(servicehelpers.LoadBalancerCleanupFinalizer), []byte(classFinalizer))
	return c.ServiceInterface.Patch(ctx, name, kind, patch, options, subresources...)
}
