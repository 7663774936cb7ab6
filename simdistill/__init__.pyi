from simdistill.api import Recipe as Recipe
from simdistill.api import Student as Student
from simdistill.api import Teacher as Teacher
from simdistill.api import auto_recipe as auto_recipe
from simdistill.api import distill as distill
from simdistill.api import evaluate as evaluate
from simdistill.api import load_generator as load_generator
from simdistill.api import load_recipe as load_recipe
from simdistill.api import load_teacher as load_teacher
from simdistill.api import sample as sample

__version__: str
