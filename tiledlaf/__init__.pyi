"""Public names, each from where it lives; types for users and for the lazy loader."""

from .errors import DamagedFile as DamagedFile
from .errors import InputError as InputError
from .errors import NotEnoughMemory as NotEnoughMemory
from .errors import OutputBelongsElsewhere as OutputBelongsElsewhere
from .errors import TiledlafError as TiledlafError
from .estimator import AssignmentFlow as AssignmentFlow
from .flow import gradient as gradient
from .flow import losses as losses
from .flow import optimizers as optimizers
from .flow import sequence as sequence
from .flow import stencil as stencil
from .flow.composition import Layer as Layer
from .flow.composition import compose as compose
from .flow.gradient import Polynomials as Polynomials
from .flow.gradient import Spaces as Spaces
from .flow.gradient import linearize as linearize
from .flow.linear import Euler as Euler
from .flow.linear import Krylov as Krylov
from .flow.linear import LinearizedSequence as LinearizedSequence
from .flow.linear import Taylor as Taylor
from .flow.linear import assignment as assignment
from .flow.linear import rounding as rounding
from .flow.linear import solve as solve
from .flow.nonlinear import RKMK4 as RKMK4
from .flow.nonlinear import AdaptiveRKMK as AdaptiveRKMK
from .flow.nonlinear import GeometricEuler as GeometricEuler
from .flow.sequence import linearize_sequence as linearize_sequence
from .labeling.request import label as label
from .labeling.run import Summary as Summary
from .model import predictor as predictor
from .model.model import Model as Model
from .model.model import load as load
from .pool.opening import open_pool as open_pool
from .reports.evaluation import evaluate as evaluate
from .reports.explanation import explain as explain
from .reports.scores import Evaluation as Evaluation
from .training import graph as graph
from .training.estimate import Estimation as Estimation
from .training.estimate import estimate as estimate
from .training.examples import Example as Example
from .training.examples import pair as pair
from .training.plan import Data as Data
from .training.plan import Recipe as Recipe
from .training.run import train as train

__version__: str
